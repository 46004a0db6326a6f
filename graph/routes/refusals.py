"""Errors of routes as HTTP answers: one body per error, none of them kept by any cache."""

import logging
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from graph.auditing import note_refusal
from graph.correlation import correlation_id
from graph.statuses import headers_of, status_of
from services.errors import Error, NotFound

_log = logging.getLogger(__name__)

_CODES: Mapping[int, str] = {404: NotFound.code, 405: "METHOD_NOT_ALLOWED"}
"""What the router refuses."""


async def refusal(request: Request, error: Error) -> JSONResponse:
    """Return the answer to a request that ended in an error of ours, and note a refusal."""
    await note_refusal(request, error)
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
