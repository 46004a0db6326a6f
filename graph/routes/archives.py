"""`GET /archives/v2/...`: a signed URL answered with Orthanc's ZIP of a study or a series."""

import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from graph.execution.audit import recorded
from graph.http.client_slots import ClientSlots
from graph.http.errors import refusal
from graph.routes.frames import require_share, signed_path
from graph.state import runtime_of
from services.audit import Action
from services.auth.roles import Principal, Role
from services.errors import Error, NotFound
from services.frames.signing import ArchiveReference
from services.sharing.service import name_of


def archive_routes(*, per_client: int) -> list[Route]:
    """Make the routes of one application.

    Args:
        per_client: How many archives one client may download at once: each holds a connection to
            Orthanc for as long as its reader takes.
    """
    slots = ClientSlots("archives", per_client, setting="ARCHIVES_PER_CLIENT")

    async def answer(request: Request) -> Response:
        return await archive(request, slots)

    return [Route("/archives/v2/{signed:path}", answer, methods=["GET"])]


async def archive(request: Request, slots: ClientSlots) -> Response:
    """Stream the archive that a signed URL points to.

    Errors before the first byte are statuses; one after it breaks the connection, so that half a
    ZIP never looks complete.

    Args:
        request: HEAD is answered without asking Orthanc.
        slots: What one client may download at once.
    """
    runtime = runtime_of(request)
    frames = runtime.frames
    try:
        reference = frames.signer.verify_archive(signed_path(request.scope), now=time.time())
        principal = None
        if reference.share_id is not None:
            await require_share(runtime, reference.share_id)
            principal = Principal(name_of(reference.share_id), Role.VIEWER)
        if request.method == "HEAD":
            return Response(media_type="application/zip", headers=_headers(reference))
        async with (
            recorded(runtime.audit, Action.ARCHIVE, principal, detail="GET /archives/v2") as event,
            AsyncExitStack() as opening,
        ):
            event.study_ids.add(reference.study_id)
            opening.enter_context(slots.hold(request.scope))
            chunks = await opening.enter_async_context(frames.archive(reference))
            first = await anext(chunks, None)
            if first is None:
                raise NotFound("Study not found")
            return _Archive(opening.pop_all(), first, chunks, _headers(reference))
    except Error as error:
        return await refusal(request, error)


class _Archive(StreamingResponse):
    """Streams a ZIP; its connection to Orthanc is closed with it, however it ends."""

    def __init__(
        self,
        opened: AsyncExitStack,
        first: bytes,
        chunks: AsyncIterator[bytes],
        headers: dict[str, str],
    ) -> None:
        super().__init__(_chained(first, chunks), media_type="application/zip", headers=headers)
        self._opened = opened

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._opened:
            await super().__call__(scope, receive, send)


async def _chained(first: bytes, chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for chunk in chunks:
        yield chunk


def _headers(reference: ArchiveReference) -> dict[str, str]:
    resource_id = reference.series_id or reference.study_id
    return {
        # The name holds Orthanc's identifier only: file names travel through logs and mails.
        "Content-Disposition": f'attachment; filename="{resource_id}.zip"',
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
    }
