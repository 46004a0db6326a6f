"""`GET /archives/v2/...` and `GET /exports/v2/...`: ZIP archives by signed URLs.

The first are archives of studies and series, which Orthanc makes; the second are finished exports.
"""

import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection
from contextlib import AbstractAsyncContextManager, aclosing
from dataclasses import dataclass
from functools import partial

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from graph.execution.audit import recorded
from graph.http.client_slots import ClientSlots
from graph.http.errors import refusal
from graph.http.streams import ZIP, attachment_headers, passed_on
from graph.routes.frames import share_principal, signed_path
from graph.state import runtime_of
from services.audit import Action
from services.auth.roles import Principal
from services.errors import Error, NotFound
from services.runtime import Runtime


@dataclass(frozen=True, slots=True)
class _Download:
    """An archive that a signed URL points to.

    Attributes:
        principal: The share for which the URL was signed; None: none.
        file_name: Suggested to the client. It has neither names nor dates, because file names are
            in logs and mails.
        detail: For the audit trail.
        number_of_objects: For the audit trail.
        opened: Opens its bytes.
    """

    principal: Principal | None
    file_name: str
    detail: str
    study_ids: Collection[str]
    number_of_objects: int
    opened: Callable[[], AbstractAsyncContextManager[AsyncIterator[bytes]]]


_Find = Callable[[Runtime, bytes], Awaitable[_Download]]
"""Verifies a signed path and finds its archive."""


def archive_routes(slots: ClientSlots) -> list[Route]:
    """Make the routes of one application.

    Args:
        slots: Limit what one client may download at once: each download uses a connection to
            Orthanc for as long as its reader takes.
    """
    return [_route("archives", find_archive, slots), _route("exports", find_export, slots)]


def _route(name: str, find: _Find, slots: ClientSlots) -> Route:
    async def answer(request: Request) -> Response:
        return await _stream(request, find, slots)

    return Route(f"/{name}/v2/{{signed:path}}", answer, methods=["GET"])


async def _stream(request: Request, find: _Find, slots: ClientSlots) -> Response:
    """Stream an archive; HEAD is answered without asking Orthanc.

    Errors before the first byte are statuses; a later one breaks the connection, so that a partial
    ZIP never looks complete.
    """
    runtime = runtime_of(request)
    try:
        download = await find(runtime, signed_path(request.scope))
        headers = attachment_headers(download.file_name)
        if request.method == "HEAD":
            return Response(media_type=ZIP, headers=headers)
        async with recorded(
            runtime.audit, Action.ARCHIVE, download.principal, detail=download.detail
        ) as event:
            event.study_ids.update(download.study_ids)
            event.number_of_objects = download.number_of_objects

            async def parts() -> AsyncGenerator[bytes, None]:
                with slots.hold(request.scope):
                    async with download.opened() as chunks:
                        is_empty = True
                        async for chunk in chunks:
                            is_empty = False
                            yield chunk
                        if is_empty:
                            raise NotFound("Study not found")

            return await passed_on(parts(), headers=headers, media_type=ZIP)
    except Error as error:
        return await refusal(request, error)


async def find_archive(runtime: Runtime, path: bytes) -> _Download:
    """Find the archive of a study or a series, which Orthanc makes."""
    frames = runtime.frames
    reference = frames.signer.verify_archive(path, now=time.time())
    return _Download(
        await share_principal(runtime, reference.share_id),
        f"{reference.series_id or reference.study_id}.zip",
        "GET /archives/v2",
        {reference.study_id},
        1,
        partial(frames.archive, reference),
    )


async def find_export(runtime: Runtime, path: bytes) -> _Download:
    """Find a finished export, whose ZIP is made while it is downloaded."""
    exports = runtime.exports
    reference = exports.urls.verify(path, now=time.time())
    principal = await share_principal(runtime, reference.share_id)
    job = await exports.find(reference)
    return _Download(
        principal,
        f"export-{job.id}.zip",
        f"GET /exports/v2 job {job.id}",
        job.orthanc_study_ids,
        job.completed,
        lambda: aclosing(exports.archive(job)),
    )
