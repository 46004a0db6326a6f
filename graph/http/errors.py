"""Errors over HTTP: the status of each error, and the response of all REST routes.

All routes but `/graphql` answer an error with problem details (RFC 9457). For `/graphql` see
`graph.http.graphql_errors`.
"""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Scope

from graph.execution.audit import record_refusal
from graph.http.accept import NotAcceptable
from graph.http.multipart import UnsupportedMediaType, UploadIdle, UploadNotKept
from graph.state import correlation_id
from services.errors import (
    AmbiguousStudy,
    DatabaseUnavailable,
    Error,
    FileRejected,
    Forbidden,
    FrameError,
    FrameNotRenderable,
    FrameQuarantined,
    FrameUrlExpired,
    FrameUrlInvalid,
    InvalidInput,
    LimitExceeded,
    NotFound,
    OrthancError,
    OrthancFull,
    OrthancNotFound,
    OrthancUnavailable,
    PacsDisabled,
    RendererUnavailable,
    RenderQueueFull,
    TooManyRequests,
    Unauthenticated,
)

RETRY_AFTER_SECONDS = 2
"""The embedded Orthanc is restarted within one second after a crash."""

STATUSES: tuple[tuple[type[Error], HTTPStatus], ...] = (
    (InvalidInput, HTTPStatus.BAD_REQUEST),
    (FileRejected, HTTPStatus.BAD_REQUEST),
    (Unauthenticated, HTTPStatus.UNAUTHORIZED),
    (FrameUrlInvalid, HTTPStatus.FORBIDDEN),
    (Forbidden, HTTPStatus.FORBIDDEN),
    (FrameUrlExpired, HTTPStatus.GONE),
    (NotFound, HTTPStatus.NOT_FOUND),
    (OrthancNotFound, HTTPStatus.NOT_FOUND),
    (NotAcceptable, HTTPStatus.NOT_ACCEPTABLE),
    (UploadIdle, HTTPStatus.REQUEST_TIMEOUT),
    (TooManyRequests, HTTPStatus.TOO_MANY_REQUESTS),
    (LimitExceeded, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UploadNotKept, HTTPStatus.INSUFFICIENT_STORAGE),
    (UnsupportedMediaType, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (FrameNotRenderable, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (FrameQuarantined, HTTPStatus.UNPROCESSABLE_ENTITY),
    (RenderQueueFull, HTTPStatus.SERVICE_UNAVAILABLE),
    (RendererUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (AmbiguousStudy, HTTPStatus.CONFLICT),
    (FrameError, HTTPStatus.NOT_FOUND),
    (PacsDisabled, HTTPStatus.SERVICE_UNAVAILABLE),
    (DatabaseUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (OrthancUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (OrthancFull, HTTPStatus.SERVICE_UNAVAILABLE),
    (OrthancError, HTTPStatus.BAD_GATEWAY),
)
"""Subclasses before their parents: the first match counts."""


def status_of(error: Error) -> HTTPStatus:
    """Return the status of an error; 500 if it has no other."""
    return next(
        (status for kind, status in STATUSES if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )


def headers_of(error: Error) -> dict[str, str]:
    """Return the headers of every response to this error."""
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    # No Retry-After for what an administrator has to change: a retry would fail as well.
    is_away = status_of(error) == HTTPStatus.SERVICE_UNAVAILABLE
    is_busy = isinstance(error, TooManyRequests)
    if is_busy or (is_away and not isinstance(error, PacsDisabled | OrthancFull)):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return headers


_log = logging.getLogger(__name__)

PROBLEM_JSON = "application/problem+json"

_FORMER_ROUTES = "/api/dicom/"
"""Clients of the previous system read `success` and `message`; RFC 9457 allows such members."""

_ROUTING_ERRORS: Mapping[int, tuple[str, str]] = {
    404: (NotFound.code, "There is nothing at this address."),
    405: ("METHOD_NOT_ALLOWED", "This address does not allow this method."),
}
"""Code and message of the errors of Starlette's router."""


def problem(
    scope: Scope, status: int, code: str, detail: str, headers: Mapping[str, str]
) -> JSONResponse:
    """Return problem details (RFC 9457).

    `type` is `about:blank`: the status and our own member `code` identify the error. GraphQL uses
    the same codes.

    Args:
        scope: Of the request.
        status: The HTTP status.
        code: The stable name of the error.
        detail: A sentence for users.
        headers: Of the response, besides the media type.
    """
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "code": code,
        "correlationId": correlation_id.get(),
    }
    if scope["path"].startswith(_FORMER_ROUTES):
        body |= {"success": False, "message": detail}
    return JSONResponse(body, status_code=status, headers=headers, media_type=PROBLEM_JSON)


async def refusal(request: Request, error: Error, *, message: str | None = None) -> JSONResponse:
    """Return the response to one of our errors, and record the error if it is a refusal.

    Args:
        request: The request.
        error: The error that ended it.
        message: Replaces the error's own sentence.
    """
    await record_refusal(request, error)
    status = status_of(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        reason = error.detail or error.message
        _log.warning("%s: %s (%s)", error.code, reason, correlation_id.get())
    headers = headers_of(error) | {"X-Content-Type-Options": "nosniff"}
    return problem(request.scope, status, error.code, message or error.message, headers)


async def routing_refusal(request: Request, refused: Exception) -> Response:
    """Return the response to a request that matches no route or method."""
    if not isinstance(refused, HTTPException):
        raise refused
    status = refused.status_code
    code, sentence = _ROUTING_ERRORS.get(status, (InvalidInput.code, refused.detail))
    is_stock_sentence = refused.detail == HTTPStatus(status).phrase
    headers = {**(refused.headers or {}), "Cache-Control": "no-store"}
    detail = sentence if is_stock_sentence else refused.detail
    return problem(request.scope, status, code, detail, headers)
