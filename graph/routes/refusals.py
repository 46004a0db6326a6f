"""Errors of signed URLs as HTTP answers: one body per error, none of them kept by any cache."""

import logging
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse

from graph.auditing import note_refusal
from graph.correlation import correlation_id
from graph.statuses import headers_of, status_of
from services.errors import Error

_log = logging.getLogger(__name__)


async def refusal(request: Request, error: Error) -> JSONResponse:
    """Return the answer to a request that ended in an error of ours, and note a refusal."""
    await note_refusal(request, error)
    status = status_of(error)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        _log.warning("%s: %s (%s)", error.code, error.detail, correlation_id.get())
    headers = headers_of(error) | {"X-Content-Type-Options": "nosniff"}
    body = {"error": {"code": error.code, "message": error.message}}
    return JSONResponse(body, status_code=status, headers=headers)
