"""The one table of HTTP statuses: which error of ours is which status, and what goes with it."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

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
"""The embedded Orthanc is back within one second of its death."""

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
"""Subclasses before their parents: the first that fits counts."""


def status_of(error: Error) -> HTTPStatus:
    """Return the status that stands for an error; 500 for one that has none of its own."""
    return next(
        (status for kind, status in STATUSES if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )


def headers_of(error: Error) -> dict[str, str]:
    """Return the headers that every answer to this error has."""
    headers = {"Cache-Control": "no-store"}
    if isinstance(error, Unauthenticated):
        headers["WWW-Authenticate"] = "Bearer"
    # What is switched off or full stays so until a person acts: asking again is of no use.
    is_away = status_of(error) == HTTPStatus.SERVICE_UNAVAILABLE
    is_busy = isinstance(error, TooManyRequests)
    if is_busy or (is_away and not isinstance(error, PacsDisabled | OrthancFull)):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return headers


_log = logging.getLogger(__name__)

_CODES: Mapping[int, str] = {404: NotFound.code, 405: "METHOD_NOT_ALLOWED"}
"""What the router refuses."""


async def refusal(request: Request, error: Error) -> JSONResponse:
    """Return the answer to a request that ended in an error of ours, and note a refusal."""
    await record_refusal(request, error)
    status = status_of(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        told = error.detail or error.message
        _log.warning("%s: %s (%s)", error.code, told, correlation_id.get())
    headers = headers_of(error) | {"X-Content-Type-Options": "nosniff"}
    body = {"error": {"code": error.code, "message": error.message}}
    return JSONResponse(body, status_code=status, headers=headers)


async def routing_refusal(_request: Request, refused: Exception) -> Response:
    """Return the answer where no route or method fits: in JSON, as all other refusals."""
    if not isinstance(refused, HTTPException):
        raise refused
    code = _CODES.get(refused.status_code, "INVALID_INPUT")
    headers = {**(refused.headers or {}), "Cache-Control": "no-store"}
    body = {"error": {"code": code, "message": refused.detail}}
    return JSONResponse(body, status_code=refused.status_code, headers=headers)
