"""Errors of signed URLs as HTTP answers: one body per error, none of them kept by any cache."""

import logging
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse

from graph.auditing import note_refusal
from graph.correlation import correlation_id
from services.errors import (
    DatabaseUnavailable,
    Error,
    FrameNotFound,
    FrameNotRenderable,
    FrameQuarantined,
    FrameUrlExpired,
    FrameUrlInvalid,
    NotFound,
    OrthancError,
    OrthancNotFound,
    OrthancUnavailable,
    PacsDisabled,
    RenderQueueFull,
)

_log = logging.getLogger(__name__)

RETRY_AFTER_SECONDS = 2
"""The embedded Orthanc is back within one second of its death."""

_STATUSES: tuple[tuple[type[Error], HTTPStatus], ...] = (
    (FrameUrlInvalid, HTTPStatus.FORBIDDEN),
    (FrameUrlExpired, HTTPStatus.GONE),
    (FrameNotFound, HTTPStatus.NOT_FOUND),
    (NotFound, HTTPStatus.NOT_FOUND),
    (OrthancNotFound, HTTPStatus.NOT_FOUND),
    (FrameNotRenderable, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (FrameQuarantined, HTTPStatus.UNPROCESSABLE_ENTITY),
    (RenderQueueFull, HTTPStatus.SERVICE_UNAVAILABLE),
    (OrthancUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (DatabaseUnavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (PacsDisabled, HTTPStatus.SERVICE_UNAVAILABLE),
    (OrthancError, HTTPStatus.BAD_GATEWAY),
)
"""Subclasses before their parents: the first that fits counts."""


async def refusal(request: Request, error: Error) -> JSONResponse:
    """Return the answer to a request that ended in an error of ours, and note a refusal."""
    await note_refusal(request, error)
    status = next(
        (status for kind, status in _STATUSES if isinstance(error, kind)),
        HTTPStatus.INTERNAL_SERVER_ERROR,
    )
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning("%s: %s (%s)", error.code, error.detail, correlation_id.get())
    headers = {"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff"}
    # What is switched off stays off: asking again is of no use.
    if status == HTTPStatus.SERVICE_UNAVAILABLE and not isinstance(error, PacsDisabled):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    body = {"error": {"code": error.code, "message": error.message}}
    return JSONResponse(body, status_code=status, headers=headers)
