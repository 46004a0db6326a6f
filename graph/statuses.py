"""The one table of HTTP statuses: which error of ours is which status, and what goes with it."""

from http import HTTPStatus

from graph.multipart import UploadNotKept
from graph.request_body import UnsupportedMediaType, UploadIdle
from services.errors import (
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
    RenderQueueFull,
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
    (UploadIdle, HTTPStatus.REQUEST_TIMEOUT),
    (LimitExceeded, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (UploadNotKept, HTTPStatus.INSUFFICIENT_STORAGE),
    (UnsupportedMediaType, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (FrameNotRenderable, HTTPStatus.UNSUPPORTED_MEDIA_TYPE),
    (FrameQuarantined, HTTPStatus.UNPROCESSABLE_ENTITY),
    (RenderQueueFull, HTTPStatus.SERVICE_UNAVAILABLE),
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
    if is_away and not isinstance(error, PacsDisabled | OrthancFull):
        headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return headers
