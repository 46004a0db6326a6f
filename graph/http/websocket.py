"""The protocol graphql-transport-ws: authentication, authorization and validation of messages.

A malformed message closes the connection with code 4400. Strawberry does not check messages, so a
malformed one would be an unexpected error with a traceback in the log, and no credential is needed
to send one.
"""

from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing, suppress
from typing import Any, Protocol, cast

from graphql import GraphQLError
from starlette.websockets import WebSocketDisconnect
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.http.exceptions import NonJsonMessageReceived, WebSocketDisconnected
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import (
    BaseGraphQLTransportWSHandler,
    Operation,
)
from strawberry.subscriptions.protocols.graphql_transport_ws.types import (
    ConnectionInitMessage,
    SubscribeMessage,
)
from strawberry.types.execution import PreExecutionError

from graph.context import Context
from graph.execution.audit import record_accesses
from graph.http.json_encoding import encode_json
from graph.http.server import LARGE_MESSAGES
from graph.http.trusted_documents import (
    DOCUMENT_ID,
    PERSISTED_QUERY,
    DocumentRefused,
    TrustedDocuments,
)
from services.auth.roles import Role, authorize
from services.errors import DatabaseUnavailable, Error, Forbidden, LimitExceeded, Unauthenticated


class _Endpoint(Protocol):
    """The part of the endpoint that its connections use."""

    documents: TrustedDocuments


async def refused_operation(context: Context, name: str) -> Error | None:
    """Authenticate the caller again, and record a refusal.

    Args:
        context: Of the connection.
        name: What is refused, for the audit trail.

    Returns:
        Why the caller is refused; None if they may read.
    """
    await context.identify_again()
    try:
        authorize(context.principal, Role.VIEWER)
    except (Unauthenticated, Forbidden) as exc:
        context.accesses.refusals.append((name, exc.code))
        # No data is shown, so the refusal need not fail if it can't be recorded.
        with suppress(DatabaseUnavailable):
            await record_accesses(context.runtime.audit, context.accesses, context.principal)
        return exc
    return None


class PerOperationContext(BaseGraphQLTransportWSHandler[Context, None]):
    """The operations of one connection."""

    async def handle_connection_init(self, message: ConnectionInitMessage) -> None:
        """Allow large messages when the client is authenticated."""
        await super().handle_connection_init(message)
        if self.connection_acknowledged:
            cast("MessageValidator", self.websocket).allow_large_messages()

    async def handle_subscribe(self, message: SubscribeMessage) -> None:
        """Start an operation, unless too many run or the client is no longer authenticated."""
        is_new = self.connection_acknowledged and message["id"] not in self.operations
        refusal = await self._refusal_of_operation() if is_new else None
        if refusal is not None:
            error = GraphQLError(refusal.message, extensions={"code": refusal.code})
            await self._refuse(message["id"], error)
            return
        operation = cast("dict[str, Any]", message["payload"])
        try:
            text = cast("_Endpoint", self.view).documents.resolve(
                operation.get("query"), operation.get(DOCUMENT_ID), operation.get("extensions")
            )
        except DocumentRefused as exc:
            await self._refuse(message["id"], exc.error)
            return
        # Strawberry answers the missing text with a request error.
        operation["query"] = text or ""
        await super().handle_subscribe(message)

    async def _refuse(self, operation_id: str, error: GraphQLError) -> None:
        await self.send_message({"id": operation_id, "type": "error", "payload": [error.formatted]})

    async def _refusal_of_operation(self) -> Error | None:
        """Return why an operation is refused before it is parsed."""
        allowed = self.max_subscriptions_per_connection
        if allowed is not None and len(self.operations) >= allowed:
            return LimitExceeded(f"A WebSocket may have {allowed} operations at once.")
        return await refused_operation(self.context, "subscribe")

    async def _handle_pre_execution_error(
        self, operation: Operation[Context, None], result: PreExecutionError
    ) -> None:
        await operation.send_initial_errors(result.errors or [])


_REASON_MAX_BYTES = 123
"""Longest reason (RFC 6455, 5.5): a control frame has 125 bytes, two of them for the code."""


class MessageValidator(ASGIWebSocketAdapter):
    """The connection that Strawberry reads from and closes."""

    def allow_large_messages(self) -> None:
        """Tell the server's protocol (`graph.http.server`) that the client is authenticated."""
        self.ws.scope["extensions"][LARGE_MESSAGES] = {}

    async def iter_json(
        self, *, ignore_parsing_errors: bool = False
    ) -> AsyncGenerator[object, None]:
        """Yield the messages.

        Raises:
            NonJsonMessageReceived: A malformed message; Strawberry closes the connection.
        """
        messages = super().iter_json(ignore_parsing_errors=ignore_parsing_errors)
        async with aclosing(messages):
            async for message in messages:
                if not is_message(message):
                    raise NonJsonMessageReceived
                yield message

    async def send_json(self, message: Mapping[str, object]) -> None:
        """Send a message; other requests are answered while a large one is encoded.

        Raises:
            WebSocketDisconnected: The client has disconnected.
        """
        text = (await encode_json(message)).decode()
        try:
            await self.ws.send_text(text)
        except WebSocketDisconnect as exc:
            raise WebSocketDisconnected from exc

    async def close(self, code: int, reason: str) -> None:
        """Close the connection; shorten the reason, which may repeat what the client sent."""
        short = reason.encode(errors="replace")[:_REASON_MAX_BYTES].decode(errors="ignore")
        await super().close(code, short)


def is_message(message: object) -> bool:
    """Return whether decoded JSON has the format of a message from a client.

    Its type may be unknown, which Strawberry answers.
    """
    match message:
        case {"type": "subscribe", "id": str(), "payload": dict() as operation}:
            return _is_operation(operation)
        case {"type": "complete", "id": str()}:
            return True
        case {"type": "subscribe" | "complete"}:
            return False
        case {"type": str()}:
            return True
    return False


def _is_operation(operation: Mapping[str, object]) -> bool:
    """Return whether the payload of `subscribe` has a text, or the identifier of a document."""
    extensions = operation.get("extensions")
    is_named = operation.get(DOCUMENT_ID) is not None or (
        isinstance(extensions, dict) and PERSISTED_QUERY in extensions
    )
    return (
        isinstance(operation.get("query"), str | None if is_named else str)
        and isinstance(operation.get("variables"), dict | None)
        and isinstance(operation.get("operationName"), str | None)
        and isinstance(extensions, dict | None)
    )
