"""WADO-RS metadata: headers in the DICOM JSON model (PS3.18 10.4.1.1.2)."""

from collections.abc import AsyncIterator, Mapping, Sequence
from http import HTTPStatus

import orjson
from starlette.responses import Response, StreamingResponse
from starlette.routing import BaseRoute

from graph.dicomweb.exchange import Exchange, Mount
from graph.execution.audit import recorded
from graph.http.conditional import names_tag
from services.audit import Action
from services.dicom.json_model import BULK_ROOT
from services.dicomweb.resources import SeriesResource, StudyResource
from services.query.gzip_pieces import GzipJoin, Piece, text_piece
from services.query.series_headers import Chunk, SeriesHeaders, revisions_digest
from services.tasks import finish_in_thread

_Revisions = Mapping[str, str]


def metadata_routes(mount: Mount) -> list[BaseRoute]:
    """Make the routes of metadata."""
    series = "/studies/{study}/series/{series}"
    return [
        mount.route("/studies/{study}/metadata", _study),
        mount.route(f"{series}/metadata", _series),
        mount.route(f"{series}/instances/{{instance}}/metadata", _instance),
    ]


async def _study(exchange: Exchange) -> Response:
    resources = exchange.runtime.resources
    study = await resources.study(exchange.path("study"), exchange.principal.scope)
    return await _headers_of(exchange, study, await resources.series_of(study))


async def _series(exchange: Exchange) -> Response:
    series = await exchange.runtime.resources.series(
        exchange.path("study"), exchange.path("series"), exchange.principal.scope
    )
    return await _headers_of(exchange, series.study, [series])


async def _instance(exchange: Exchange) -> Response:
    exchange.json_type()
    runtime = exchange.runtime
    instance = await runtime.resources.instance(
        exchange.path("study"),
        exchange.path("series"),
        exchange.path("instance"),
        exchange.principal.scope,
    )
    async with recorded(
        runtime.audit, Action.VIEW, exchange.principal, detail=exchange.detail
    ) as event:
        event.study_ids.add(instance.orthanc_study_id)
        event.patient_ids.add(instance.orthanc_patient_id)
        headers = {"ETag": f'W/"{instance.revision}"', **_HEADERS}
        if names_tag(exchange.request.scope, headers["ETag"]):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        header = await runtime.headers.dicom_json(
            instance.id, instance.revision, series_id=instance.orthanc_series_id
        )
    content = orjson.dumps([header.elements])
    # Addresses in a header are those of the service at its usual place.
    elements = orjson.loads(content.replace(b'"/dicomweb/', f'"{exchange.root}/'.encode()))
    return await exchange.json(elements, headers=headers)


_HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Accept, Accept-Encoding"}


async def _headers_of(
    exchange: Exchange, study: StudyResource, series: Sequence[SeriesResource]
) -> Response:
    media_type = exchange.json_type()
    store = exchange.runtime.series_headers
    async with recorded(
        exchange.runtime.audit, Action.VIEW, exchange.principal, detail=exchange.detail
    ) as event:
        event.study_ids.add(study.id)
        event.patient_ids.add(study.patient_id)
        held = [(one.id, await store.revisions(one.id)) for one in series]
        event.number_of_objects = sum(len(revisions) for _, revisions in held)
        headers = {"ETag": f'W/"{revisions_digest(held)}"', **_HEADERS}
        if names_tag(exchange.request.scope, headers["ETag"]):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        pieces = _pieces(store, held, exchange.root)
        body = _gzipped(pieces) if exchange.accepts_gzip else _plain(pieces)
        # What goes wrong before the first chunk is a status; later it breaks the connection.
        first = [await anext(body)]
    if exchange.accepts_gzip:
        headers["Content-Encoding"] = "gzip"
    return StreamingResponse(_chained(first, body), 200, headers, media_type)


async def _pieces(
    store: SeriesHeaders, held: Sequence[tuple[str, _Revisions]], root: str
) -> AsyncIterator[Piece]:
    """Yield the pieces of a JSON array; one chunk is in memory."""
    between = "["
    for series_id, revisions in held:
        async for chunk in store.chunks(series_id, revisions):
            if not chunk.is_empty:
                yield text_piece(between)
                yield await _addressed(chunk, root)
                between = ","
    yield text_piece("]" if between == "," else "[]")


async def _addressed(chunk: Chunk, root: str) -> Piece:
    """Give long binary values the address under which the caller reaches them."""
    if not chunk.has_bulk_data:
        return chunk.piece

    def write() -> Piece:
        own = chunk.piece.content().replace(BULK_ROOT.encode(), f"{root}/".encode())
        return Piece.of(own)

    return await finish_in_thread(write)


async def _gzipped(pieces: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
    join = GzipJoin()
    waiting = join.begin()
    async for piece in pieces:
        waiting += join.add(piece)
        if len(waiting) > _SENT_BYTES:
            yield waiting
            waiting = b""
    yield waiting + join.end()


async def _plain(pieces: AsyncIterator[Piece]) -> AsyncIterator[bytes]:
    waiting = b""
    async for piece in pieces:
        waiting += await finish_in_thread(piece.content)
        if len(waiting) > _SENT_BYTES:
            yield waiting
            waiting = b""
    yield waiting


_SENT_BYTES = 64 * 1024
"""What is sent at once: most series have less, and go out in one piece."""


async def _chained(first: list[bytes], rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first.pop()
    async for part in rest:
        yield part
