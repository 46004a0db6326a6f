"""`POST /internal/orthanc-events`: Orthanc's Lua script reports deletions."""

import hmac
import json

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from graph.http.errors import refusal
from graph.http.multipart import read_body
from graph.state import runtime_of
from services.errors import Error, Forbidden, InvalidInput
from services.sync.orthanc_script import EVENTS_PATH, SECRET_HEADER

_BODY_MAX_BYTES = 64 * 1024
"""A thousand identifiers."""

_IDLE_SECONDS = 30
"""Orthanc sends a notice in one piece."""


async def orthanc_events(request: Request) -> Response:
    """Receive deletions; Orthanc is asked before anything is removed from the index."""
    runtime = runtime_of(request)
    given = request.headers.get(SECRET_HEADER, "").encode()
    if not hmac.compare_digest(given, runtime.orthanc_events_secret.encode()):
        return await refusal(request, Forbidden())
    ids = await _deleted_ids(request)
    if ids is None:
        return await refusal(request, InvalidInput('Send {"deleted": ["<instance id>"]}.'))
    if runtime.sync is not None:
        runtime.sync.notice_deleted(ids)
    return Response(status_code=204)


async def _deleted_ids(request: Request) -> list[str] | None:
    try:
        body = await read_body(request, max_bytes=_BODY_MAX_BYTES, idle_seconds=_IDLE_SECONDS)
        deleted = json.loads(body)["deleted"]
    except (Error, ValueError, KeyError, TypeError):
        return None
    return [str(entry) for entry in deleted] if isinstance(deleted, list) else None


routes = [Route(EVENTS_PATH, orthanc_events, methods=["POST"])]
