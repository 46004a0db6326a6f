"""`GET /files/v2/...` and `/documents/v2/...`: signed URLs answered with a file or its document."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from http import HTTPStatus

from cachetools import TTLCache
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from graph.execution.audit import recorded
from graph.http.client_slots import ClientSlots
from graph.http.conditional import names_tag
from graph.http.errors import refusal
from graph.http.ranges import Span
from graph.http.streams import in_turn, passed_on
from graph.routes.frames import require_share, signed_path
from graph.state import client_address, runtime_of
from services.audit import Action
from services.auth.roles import Principal, Role
from services.downloads.service import DownloadedInstance
from services.downloads.urls import FileReference
from services.errors import Error, NotFound
from services.sharing.service import name_of

_RECORDED_SECONDS = 300.0
_RECORDED = 10_000

_DOCUMENT_POLICY = "sandbox; default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'self'"
"""Of a document: it runs no script, loads nothing, and stands in no page but ours."""

_Records = TTLCache[tuple[str, ...], bool]
"""Share, address, study and route of records that stand for what follows."""


def file_routes(slots: ClientSlots) -> list[Route]:
    """Make the routes of one application.

    Args:
        slots: What one client may download at once.
    """
    # Viewers load hundreds of files of a study: one record stands for those of five minutes.
    records: _Records = TTLCache(_RECORDED, _RECORDED_SECONDS)

    def route(prefix: str, handler: Callable[["_Download"], Awaitable[Response]]) -> Route:
        async def answer(request: Request) -> Response:
            try:
                return await handler(_Download(request, f"GET {prefix}", records, slots))
            except Error as error:
                return await refusal(request, error)

        return Route(f"{prefix}/{{signed:path}}", answer, methods=["GET"])

    return [route("/files/v2", _file), route("/documents/v2", _document)]


async def _file(download: "_Download") -> Response:
    """Answer a stored DICOM file."""
    downloads = download.runtime.downloads
    path = signed_path(download.request.scope)
    reference = downloads.urls.verify_file(path, now=time.time())
    await download.check_share(reference)
    instance = await downloads.find(reference)
    headers = {"Content-Disposition": f'attachment; filename="{instance.id}.dcm"'}
    return await download.part_of(
        reference, instance, (0, instance.file_size_bytes), "application/dicom", headers
    )


async def _document(download: "_Download") -> Response:
    """Answer the document in a stored DICOM file."""
    downloads = download.runtime.downloads
    path = signed_path(download.request.scope)
    reference = downloads.urls.verify_document(path, now=time.time())
    await download.check_share(reference)
    instance = await downloads.find(reference)
    kind = instance.document
    if kind is None:
        raise NotFound("There is no document in this file.")
    place = await downloads.place(instance)
    disposition = "inline" if kind.is_inline else "attachment"
    headers = {
        "Content-Disposition": f'{disposition}; filename="{instance.id}{kind.suffix}"',
        "Content-Security-Policy": _DOCUMENT_POLICY,
        "X-Frame-Options": "SAMEORIGIN",
    }
    return await download.part_of(
        reference, instance, (place.begin, place.length), kind.media_type, headers
    )


class _Download:
    """One request.

    Args:
        request: The request.
        detail: Name of the route, for the audit trail.
        records: Of the application.
        slots: Likewise.
    """

    def __init__(
        self, request: Request, detail: str, records: _Records, slots: ClientSlots
    ) -> None:
        self.request = request
        self.runtime = runtime_of(request)
        self._detail = detail
        self._records = records
        self._slots = slots

    async def check_share(self, reference: FileReference) -> None:
        """Check that the share under which the URL was minted is valid still; see `frames`."""
        if reference.share_id is not None:
            await require_share(self.runtime, reference.share_id)

    async def part_of(
        self,
        reference: FileReference,
        instance: DownloadedInstance,
        place: tuple[int, int],
        media_type: str,
        headers: dict[str, str],
    ) -> Response:
        """Answer bytes of a file, or the range of them that is asked for.

        Args:
            reference: What the URL says.
            instance: What it points to.
            place: First byte in the file, and number of bytes.
            media_type: Of these bytes.
            headers: Further ones.
        """
        etag = f'"{instance.revision}"'
        left = max(0, reference.expires - int(time.time()))
        headers |= {
            "ETag": etag,
            "Cache-Control": f"private, max-age={left}, immutable",
            "X-Content-Type-Options": "nosniff",
            "Referrer-Policy": "no-referrer",
            "Cross-Origin-Resource-Policy": (
                self.runtime.settings.frame_cross_origin_resource_policy
            ),
        }
        if names_tag(self.request.scope, etag):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        begin, size = place
        span = Span.asked(self.request.headers, size, etag=etag)
        headers |= span.headers | {"Content-Length": str(len(span))}
        if not len(span) or self.request.method == "HEAD":
            # Ranges are of GET alone (RFC 9110 14.2).
            return Response(status_code=span.status, headers=headers, media_type=media_type)
        body = self.runtime.downloads.part(instance, begin + span.begin, begin + span.end)
        async with self._recording(reference, instance):
            return await passed_on(
                in_turn(body, self._slots, self.request.scope),
                status=span.status,
                headers=headers,
                media_type=media_type,
            )

    @asynccontextmanager
    async def _recording(
        self, reference: FileReference, instance: DownloadedInstance
    ) -> AsyncIterator[None]:
        """Record that a file is read, once its first bytes are there or it has failed."""
        key = (
            reference.share_id or "",
            client_address.get() or "",
            instance.study_id,
            self._detail,
        )
        if key in self._records:
            yield
            return
        principal = None
        if reference.share_id is not None:
            principal = Principal(name_of(reference.share_id), Role.VIEWER)
        async with recorded(
            self.runtime.audit, Action.ARCHIVE, principal, detail=self._detail
        ) as event:
            event.study_ids.add(instance.study_id)
            event.patient_ids.add(instance.patient_id)
            yield
        self._records[key] = True
