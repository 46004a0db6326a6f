"""What is answered to a GraphQL request that was not executed: an error, as its sender wants it."""

from collections.abc import Mapping
from http import HTTPStatus

import orjson
from cross_web import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from strawberry.schema.exceptions import InvalidOperationTypeError

from graph.http.errors import headers_of, status_of
from services.errors import Error

JSON = "application/json"
MULTIPART = "multipart/form-data"
RESPONSE_JSON = "application/graphql-response+json"
"""GraphQL over HTTP, section 6: with this media type the status says whether it was executed."""

_CODES: Mapping[int, str] = {
    403: "FORBIDDEN",
    404: "NOT_FOUND",
    405: "METHOD_NOT_ALLOWED",
}


def media_type_of(headers: Mapping[str, str]) -> str:
    """Return the media type of a body, in lower case and without parameters."""
    return headers.get("content-type", "").partition(";")[0].strip().lower()


def wanted_media_type(connection: HTTPConnection) -> str:
    """Return the media type that an answer shall have."""
    return RESPONSE_JSON if RESPONSE_JSON in connection.headers.get("accept", "") else JSON


def refused(request: HTTPConnection, error: Error) -> Response:
    """Answer with an error of ours."""
    return _answer(request, status_of(error), error.message, error.code, headers_of(error))


def refused_by_protocol(request: Request, refusal: HTTPException) -> Response:
    """Answer what HTTP or Strawberry refuses; a mutation by GET is 405 (GraphQL over HTTP, 6.2)."""
    is_by_get = isinstance(refusal.__cause__, InvalidOperationTypeError)
    status = 405 if is_by_get and request.method == "GET" else refusal.status_code
    headers = {"Cache-Control": "no-store"}
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers["Allow"] = "GET, POST"
    return _answer(request, status, refusal.reason, _CODES.get(status, "INVALID_INPUT"), headers)


def _answer(
    request: HTTPConnection, status: int, message: str, code: str, headers: Mapping[str, str]
) -> Response:
    error = {"message": message, "extensions": {"code": code}}
    return Response(
        orjson.dumps({"errors": [error]}),
        status_code=status,
        media_type=wanted_media_type(request),
        headers=headers,
    )
