"""`GET /archives/v2/...`: a signed URL answered with Orthanc's ZIP of a study or a series."""

import time
from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from graph.execution.audit import recorded
from graph.http.client_slots import ClientSlots
from graph.http.errors import refusal
from graph.http.streams import ZIP, attachment_headers, passed_on
from graph.routes.frames import require_share, signed_path
from graph.state import runtime_of
from services.audit import Action
from services.auth.roles import Principal, Role
from services.errors import Error, NotFound
from services.sharing.service import name_of


def archive_routes(slots: ClientSlots) -> list[Route]:
    """Make the routes of one application.

    Args:
        slots: What one client may download at once: each download holds a connection to Orthanc
            for as long as its reader takes.
    """

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
        # The name holds Orthanc's identifier only: file names travel through logs and mails.
        headers = attachment_headers(f"{reference.series_id or reference.study_id}.zip")
        if request.method == "HEAD":
            return Response(media_type=ZIP, headers=headers)
        async with recorded(
            runtime.audit, Action.ARCHIVE, principal, detail="GET /archives/v2"
        ) as event:
            event.study_ids.add(reference.study_id)

            async def parts() -> AsyncGenerator[bytes, None]:
                with slots.hold(request.scope):
                    async with frames.archive(reference) as chunks:
                        is_empty = True
                        async for chunk in chunks:
                            is_empty = False
                            yield chunk
                        if is_empty:
                            raise NotFound("Study not found")

            return await passed_on(parts(), headers=headers, media_type=ZIP)
    except Error as error:
        return await refusal(request, error)
