"""`GET /exports/v2/...`: a signed URL answered with the ZIP of a finished export."""

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
from services.errors import Error
from services.sharing.service import name_of


def export_routes(slots: ClientSlots) -> list[Route]:
    """Make the routes of one application.

    Args:
        slots: What one client may download at once.
    """

    async def answer(request: Request) -> Response:
        return await export(request, slots)

    return [Route("/exports/v2/{signed:path}", answer, methods=["GET"])]


async def export(request: Request, slots: ClientSlots) -> Response:
    """Stream the export that a signed URL points to.

    Errors before the first byte are statuses; one after it breaks the connection, so that half a
    ZIP never looks complete.

    Args:
        request: HEAD is answered without asking Orthanc.
        slots: What one client may download at once.
    """
    runtime = runtime_of(request)
    exports = runtime.exports
    try:
        reference = exports.urls.verify(signed_path(request.scope), now=time.time())
        principal = None
        if reference.share_id is not None:
            await require_share(runtime, reference.share_id)
            principal = Principal(name_of(reference.share_id), Role.VIEWER)
        job = await exports.find(reference)
        # No names or dates: file names travel through logs and mails.
        headers = attachment_headers(f"export-{job.id}.zip")
        if request.method == "HEAD":
            return Response(media_type=ZIP, headers=headers)
        async with recorded(
            runtime.audit, Action.ARCHIVE, principal, detail=f"GET /exports/v2 job {job.id}"
        ) as event:
            event.study_ids.update(job.orthanc_study_ids)
            event.number_of_objects = job.completed

            async def parts() -> AsyncGenerator[bytes, None]:
                with slots.hold(request.scope):
                    async for part in exports.archive(job):
                        yield part

            return await passed_on(parts(), headers=headers, media_type=ZIP)
    except Error as error:
        return await refusal(request, error)
