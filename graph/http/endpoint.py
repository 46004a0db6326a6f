"""`/graphql`: GraphQL over HTTP and WebSocket, with uploads, limits and errors as JSON."""

import logging
from codecs import BOM_UTF8
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import Any, TypeVar, cast

import orjson
from cross_web import AsyncHTTPRequestAdapter, HTTPException, StarletteRequestAdapter
from graphql import GraphQLError, get_operation_ast
from graphql import OperationType as GraphQLOperationType
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket
from strawberry.asgi import GraphQL
from strawberry.exceptions import ConnectionRejectionError
from strawberry.http import GraphQLHTTPResponse, GraphQLRequestData
from strawberry.http.base import BaseRequestProtocol
from strawberry.http.types import QueryParams
from strawberry.schema.base import BaseSchema
from strawberry.subscriptions import GRAPHQL_SSE_PROTOCOL, GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.types import ExecutionResult
from strawberry.types.execution import PreExecutionError
from strawberry.types.unset import UnsetType

from graph.authentication import principal_of, principal_of_websocket
from graph.context import Context
from graph.execution.audit import record_refusal
from graph.execution.limits import OperationLimits, parse_limited
from graph.graphiql import graphiql_headers, graphiql_page
from graph.http.client_slots import ClientSlots
from graph.http.cors import AllowedOrigins, base_url_of, require_allowed_origin
from graph.http.event_stream import (
    EventStream,
    SubscriptionStream,
    accepts_events,
    accepts_json,
)
from graph.http.graphql_errors import (
    JSON,
    MULTIPART,
    RESPONSE_JSON,
    media_type_of,
    refused,
    refused_by_protocol,
    refused_document,
    wanted_media_type,
)
from graph.http.json_encoding import encode_json
from graph.http.multipart import UnsupportedMediaType, read_body
from graph.http.trusted_documents import DOCUMENT_ID, DocumentRefused, TrustedDocuments
from graph.http.uploads import parse_upload, starlette_request, upload_id_of, uploads_open
from graph.http.websocket import MessageValidator, PerOperationContext, refused_operation
from graph.state import runtime_of
from services.auth.roles import Role, authorize
from services.errors import Error, LimitExceeded, TooManyRequests

_log = logging.getLogger(__name__)

_SUBSCRIPTION = "subscription"

_INIT_SECONDS = 10
"""From the handshake of a WebSocket to its `connection_init`; clients send it at once."""


class _LowerCased(StarletteRequestAdapter):
    """A request whose media type Strawberry recognizes in upper case as well (RFC 9110, 8.3.1)."""

    @property
    def content_type(self) -> str:
        return media_type_of(self.headers)


class GraphQLEndpoint(GraphQL[Context, None]):
    """The GraphQL endpoint of this server.

    Args:
        schema: The schema.
        origins: Origins whose pages may open a WebSocket.
        limits: Of operations.
        body_max_bytes: Largest JSON body, in bytes; uploads have limits of their own.
        body_idle_seconds: Longest silence of the sender of a JSON body.
        websockets_per_client: How many WebSockets and event streams one client may have open.
        documents: Operations that clients may name.
    """

    request_adapter_class = _LowerCased
    websocket_adapter_class = MessageValidator
    graphql_transport_ws_handler_class = PerOperationContext
    stream_transport_classes_by_protocol = MappingProxyType(
        {GRAPHQL_SSE_PROTOCOL: SubscriptionStream}
    )

    def __init__(
        self,
        schema: BaseSchema,
        *,
        origins: AllowedOrigins,
        limits: OperationLimits,
        body_max_bytes: int,
        body_idle_seconds: float,
        websockets_per_client: int,
        documents: TrustedDocuments,
    ) -> None:
        super().__init__(
            schema,
            subscription_protocols=(GRAPHQL_TRANSPORT_WS_PROTOCOL, GRAPHQL_SSE_PROTOCOL),
            connection_init_wait_timeout=timedelta(seconds=_INIT_SECONDS),
            multipart_uploads_enabled=True,
        )
        self._origins = origins
        self._limits = limits
        self._body_max_bytes = body_max_bytes
        self._body_idle_seconds = body_idle_seconds
        self.documents = documents
        self._sockets = ClientSlots(
            "WebSockets and event streams", websockets_per_client, setting="WEBSOCKETS_PER_CLIENT"
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or WebSocket; every refusal is a GraphQL error in JSON."""
        if scope["type"] == "websocket":
            await self._serve_websocket(scope, receive, send)
            return
        request = Request(scope, receive)
        async with uploads_open(request):
            try:
                response = await self.run(request)
            except HTTPException as exc:
                response = refused_by_protocol(request, exc)
            except DocumentRefused as exc:
                response = refused_document(request, exc)
            except Error as exc:
                await record_refusal(request, exc)
                response = refused(request, exc)
            await response(scope, receive, send)

    async def _serve_websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            with self._sockets.hold(scope):
                await super().__call__(scope, receive, send)
        except TooManyRequests as exc:
            _log.warning("a WebSocket is refused: %s", exc.message)
            websocket = WebSocket(scope, receive, send)
            await websocket.send_denial_response(refused(websocket, exc))

    def is_websocket_origin_allowed(self, request: WebSocket, origin: str) -> bool:  # noqa: ARG002  # Strawberry's signature
        """Allow WebSockets from pages of the allowed origins."""
        return self._origins.allow(origin)

    async def get_context(
        self, request: Request | WebSocket, response: Response | WebSocket
    ) -> Context:
        """Make the context of one request or connection.

        Raises:
            Unauthenticated: The caller is unknown; the query was not read.
            Forbidden: A page of another origin sent a GET.
            InvalidInput: The upload has no valid identifier.
        """
        del response
        runtime = runtime_of(request)
        identify = partial(principal_of, request)
        principal = await identify()
        # GraphiQL's page holds no data, and browsers open it before a token is entered.
        if isinstance(request, Request) and not self.should_render_graphql_ide(
            self.request_adapter_class(request)
        ):
            if request.method == "GET":
                # An <img> of any page can send it, and browsers send it without a preflight.
                public_url = runtime.settings.public_url
                require_allowed_origin(request, self._origins, public_url=public_url)
            if request.method == "GET" or _is_json_post(request):
                # Before parsing: introspection must not answer callers without credentials.
                authorize(principal, Role.VIEWER)
        return Context(
            runtime=runtime,
            principal=principal,
            upload_id=upload_id_of(request),
            identify=identify if _may_last(request) else None,
            base_url=base_url_of(request, runtime.settings.public_url),
        )

    async def on_ws_connect(self, context: Context) -> UnsetType | dict[str, object] | None:
        """Identify a WebSocket by its `connection_init`: browsers can't set its headers.

        Raises:
            ConnectionRejectionError: Missing or unknown credentials; Strawberry closes with 4403.
        """
        params = context.connection_params
        if isinstance(params, Mapping) and context.identify is not None:
            context.identify = partial(
                principal_of_websocket, context.runtime, params, context.identify
            )
        if await refused_operation(context, "connection_init") is not None:
            raise ConnectionRejectionError
        return await super().on_ws_connect(context)

    async def get_sub_response(self, request: Request | WebSocket) -> Response:
        """Return a response with the requested media type, which `create_response` reads."""
        return _Negotiated(media_type=wanted_media_type(request))

    async def parse_http_body(
        self, request: AsyncHTTPRequestAdapter
    ) -> GraphQLRequestData | list[GraphQLRequestData]:
        """Read the operation; refuse other media types with 415.

        Raises:
            DocumentRefused: The trusted document is unknown, or the text is not trusted.
        """
        received = starlette_request(request)
        if request.method == "POST" and media_type_of(request.headers) not in (JSON, MULTIPART):
            raise UnsupportedMediaType
        if _is_json_post(received):
            body = await read_body(
                received, max_bytes=self._body_max_bytes, idle_seconds=self._body_idle_seconds
            )
            # Editors and shells add a byte order mark; a parser may ignore it (RFC 8259, 8.1).
            body = body.removeprefix(BOM_UTF8)
            if not body.lstrip().startswith((b"{", b"[")):
                raise HTTPException(400, "Send a JSON object with `query`.")
            if _DOCUMENT_ID_BYTES in body:
                body = orjson.dumps(_with_document_id(self.parse_json(body)))
            received._body = body  # noqa: SLF001  # where Strawberry finds it; it has no setter
        operation = await super().parse_http_body(request)
        return operation if isinstance(operation, list) else self._resolved(operation, received)

    def _resolved(self, operation: GraphQLRequestData, request: Request) -> GraphQLRequestData:
        """Replace an identifier by its trusted document, and choose how the result is sent."""
        extensions = dict(operation.extensions or {})
        document_id = extensions.pop(DOCUMENT_ID, None)
        text = self.documents.resolve(operation.query, document_id, extensions)
        resolved = replace(operation, query=text, extensions=extensions or None)
        if resolved.protocol == "http" or not accepts_json(request.headers.get("accept")):
            return resolved
        is_stream = _is_subscription(resolved, self._limits)
        return resolved if is_stream else replace(resolved, protocol="http")

    def parse_query_params(self, params: QueryParams) -> dict[str, Any]:
        """Read the parameters of a GET."""
        return _with_document_id(super().parse_query_params(params))

    def decode_json(self, data: str | bytes) -> object:
        """Decode strictly (RFC 8259): unpaired surrogates are not text and can't be stored."""
        return orjson.loads(data)

    def parse_json(self, data: str | bytes) -> Any:  # noqa: ANN401  # any JSON
        """Decode JSON; refuse invalid JSON, invalid Unicode and excessive nesting with 400."""
        try:
            return self.decode_json(data)
        except ValueError as exc:
            raise HTTPException(400, "The body of the request is not valid JSON.") from exc

    async def execute_operation(  # noqa: PLR0917  # Strawberry's signature
        self,
        request: Request,
        request_adapter: AsyncHTTPRequestAdapter,
        request_data: GraphQLRequestData | list[GraphQLRequestData],
        context: Context,
        root_value: None,
        sub_response: Response,
    ) -> Any:  # noqa: ANN401  # Strawberry's union of results
        """Execute an operation; subscriptions need a WebSocket or an event stream."""
        if (
            isinstance(request_data, GraphQLRequestData)
            and request_data.protocol == "http"
            and _is_subscription(request_data, self._limits)
        ):
            raise HTTPException(
                400,
                "Subscriptions need a WebSocket (graphql-transport-ws) or server-sent events: "
                "Accept: text/event-stream.",
            )
        return await super().execute_operation(
            request, request_adapter, request_data, context, root_value, sub_response
        )

    async def parse_multipart(self, request: AsyncHTTPRequestAdapter) -> dict[str, Any]:
        """Read an upload with our limits, a preflight header, and one file for each variable."""
        return _with_document_id(await parse_upload(request))

    async def process_result(
        self, request: Request, result: ExecutionResult
    ) -> GraphQLHTTPResponse:
        """Leave out `data` if nothing was executed (GraphQL specification, 7.1)."""
        response = await super().process_result(request, result)
        if isinstance(result, PreExecutionError):
            del response["data"]
        return response

    def create_response(
        self,
        response_data: GraphQLHTTPResponse | list[GraphQLHTTPResponse],
        sub_response: Response,
    ) -> Response:
        """Return the response with the requested media type and the status that belongs to it."""
        media_type = sub_response.media_type or JSON
        is_refused = media_type == RESPONSE_JSON and "data" not in response_data
        return _ResultResponse(
            response_data, status_code=400 if is_refused else 200, media_type=media_type
        )

    async def create_streaming_response(
        self,
        request: Request | WebSocket,
        stream: Callable[[], AsyncIterator[str]],
        sub_response: Response,
        headers: Mapping[str, str],
    ) -> Response:
        """Return the events of a subscription."""
        del sub_response
        readiness = runtime_of(request).readiness
        # Strawberry turns it into a generator.
        events = cast("AsyncGenerator[str, None]", stream())
        return EventStream(
            events, self._sockets, headers, is_stopping=lambda: readiness.is_stopping
        )

    def encode_json(self, data: object) -> bytes:
        """Encode an event."""
        return orjson.dumps(data)

    def should_render_graphql_ide(self, request: BaseRequestProtocol) -> bool:
        """Return whether a browser opens the page, rather than a client that sends `documentId`."""
        is_named = not {"extensions", DOCUMENT_ID}.isdisjoint(request.query_params)
        return super().should_render_graphql_ide(request) and not is_named

    async def render_graphql_ide(self, request: Request) -> Response:
        """Return the page of GraphiQL."""
        return HTMLResponse(graphiql_page(), headers=graphiql_headers(request))


def _is_json_post(request: Request) -> bool:
    return request.method == "POST" and media_type_of(request.headers) == JSON


def _may_last(request: Request | WebSocket) -> bool:
    """Return whether the answer may take so long that the token expires or is revoked."""
    return isinstance(request, WebSocket) or accepts_events(request.headers.get("accept"))


_DOCUMENT_ID_BYTES = DOCUMENT_ID.encode()


_Operation = TypeVar("_Operation")


def _with_document_id(operation: _Operation) -> _Operation | dict[str, Any]:
    """Move `documentId` to where Strawberry keeps it: the extensions of the request."""
    if not isinstance(operation, dict) or operation.get(DOCUMENT_ID) is None:
        return operation
    extensions = operation.get("extensions") or {}
    if not isinstance(extensions, dict):
        return operation
    named = {DOCUMENT_ID: operation[DOCUMENT_ID]}
    return {**operation, "extensions": {**extensions, **named}}


class _Negotiated(Response):
    """Holds the media type of the response."""


class _ResultResponse(Response):
    """Encodes a result when it is sent, because Strawberry creates responses synchronously."""

    def __init__(self, result: object, *, status_code: int, media_type: str) -> None:
        super().__init__(status_code=status_code, media_type=media_type)
        self._result = result

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        encoded = Response(
            await encode_json(self._result),
            status_code=self.status_code,
            media_type=self.media_type,
            headers={"Cache-Control": "no-store"},
        )
        await encoded(scope, receive, send)


def _is_subscription(operation: GraphQLRequestData, limits: OperationLimits) -> bool:
    query = operation.query or ""
    if _SUBSCRIPTION not in query:
        return False
    try:
        found = get_operation_ast(parse_limited(query, limits), operation.operation_name)
    except (GraphQLError, LimitExceeded):
        # Execution reports the error.
        return False
    return found is not None and found.operation is GraphQLOperationType.SUBSCRIPTION
