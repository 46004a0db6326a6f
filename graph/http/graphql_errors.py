"""Responses of `/graphql` to requests that were not executed: one error in GraphQL's format."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from cross_web import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from strawberry.schema.exceptions import InvalidOperationTypeError

from graph.http.errors import headers_of, status_of
from graph.http.trusted_documents import DocumentRefused
from services.errors import Error, InvalidInput
from services.observability.metrics import count_graphql_error

JSON = "application/json"
MULTIPART = "multipart/form-data"
RESPONSE_JSON = "application/graphql-response+json"
"""GraphQL over HTTP, section 6: with this media type the status shows whether it was executed."""

EVENT_STREAM = "text/event-stream"

_CODES: Mapping[int, str] = {
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
}


def media_type_of(headers: Mapping[str, str]) -> str:
    """Return the media type of a body, in lower case and without parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def wanted_media_type(connection: HTTPConnection) -> str:
    """Return the media type of the response."""
    return RESPONSE_JSON if RESPONSE_JSON in connection.headers.get("accept", "") else JSON


def refused(request: HTTPConnection, error: Error) -> Response:
    """Return the response to one of our errors."""
    return graphql_error(request, status_of(error), error.code, error.message, headers_of(error))


def refused_by_protocol(request: Request, refusal: HTTPException) -> Response:
    """Return the response to a request that HTTP or Strawberry refuses.

    A mutation by GET is 405 (GraphQL over HTTP, 6.2).
    """
    is_by_get = isinstance(refusal.__cause__, InvalidOperationTypeError)
    status = 405 if is_by_get and request.method == "GET" else refusal.status_code
    headers = {"Cache-Control": "no-store"}
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = "GET, POST"
    code = _CODES.get(status, InvalidInput.code)
    return graphql_error(request, status, code, refusal.reason, headers)


def refused_document(request: Request, refusal: DocumentRefused) -> Response:
    """Return the response to an unknown or untrusted document.

    Nothing was executed: 400, or 200 if the caller accepts `application/json` (GraphQL over HTTP,
    6.4.1).
    """
    error = refusal.error
    is_legacy = wanted_media_type(request) == JSON and EVENT_STREAM not in request.headers.get(
        "accept", ""
    )
    code = str((error.extensions or {}).get("code", InvalidInput.code))
    status = HTTPStatus.OK if is_legacy else HTTPStatus.BAD_REQUEST
    return graphql_error(request, status, code, error.message, {"Cache-Control": "no-store"})


def graphql_error(  # noqa: PLR0917  # as `graph.http.errors.problem`
    connection: HTTPConnection,
    status: int,
    code: str,
    message: str,
    headers: Mapping[str, str],
    extensions: Mapping[str, str] | None = None,
) -> Response:
    """Return one error in GraphQL's format (specification, 7.1.2).

    Args:
        connection: The request; its `Accept` determines the media type.
        status: The HTTP status.
        code: The stable name of the error.
        message: A sentence for users.
        headers: Of the response, besides the media type.
        extensions: Of the error, besides its code.
    """
    count_graphql_error(code)
    error = {"message": message, "extensions": {"code": code, **(extensions or {})}}
    return Response(
        orjson.dumps({"errors": [error]}),
        status_code=status,
        media_type=wanted_media_type(connection),
        headers=headers,
    )
