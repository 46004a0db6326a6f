"""WADO-RS metadata: headers in the DICOM JSON model (PS3.18 10.4.1.1.2)."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from http import HTTPStatus

import orjson
from starlette.responses import Response
from starlette.routing import BaseRoute

from graph.dicomweb.exchange import Exchange, Mount
from graph.http.conditional import names_tag
from graph.http.streams import passed_on
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
    study = await exchange.study()
    return await _headers_of(exchange, study, await exchange.runtime.resources.series_of(study))


async def _series(exchange: Exchange) -> Response:
    series = await exchange.series()
    return await _headers_of(exchange, series.study, [series])


async def _instance(exchange: Exchange) -> Response:
    exchange.json_type()
    instance = await exchange.instance()
    async with exchange.viewing(instance):
        headers = {"ETag": f'W/"{instance.revision}"', **_HEADERS}
        if names_tag(exchange.request.scope, headers["ETag"]):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        header = await exchange.runtime.headers.dicom_json(
            instance.id, instance.revision, series_id=instance.orthanc_series_id
        )
    # Addresses in a header are those of the service at its usual place.
    content = header.content.replace(b'"/dicomweb/', f'"{exchange.root}/'.encode())
    return await exchange.json([orjson.Fragment(content)], headers=headers)


_HEADERS = {"Cache-Control": "private, no-cache", "Vary": "Accept, Accept-Encoding"}


async def _headers_of(
    exchange: Exchange, study: StudyResource, series: Sequence[SeriesResource]
) -> Response:
    media_type = exchange.json_type()
    store = exchange.runtime.series_headers
    async with exchange.recording(Action.VIEW, study.id, study.patient_id) as event:
        held = [(one.id, await store.revisions(one.id)) for one in series]
        event.number_of_objects = sum(len(revisions) for _, revisions in held)
        headers = {"ETag": f'W/"{revisions_digest(held)}"', **_HEADERS}
        if names_tag(exchange.request.scope, headers["ETag"]):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        pieces = _pieces(store, held, exchange.root)
        if exchange.accepts_gzip:
            headers["Content-Encoding"] = "gzip"
        body = _gzipped(pieces) if exchange.accepts_gzip else _plain(pieces)
        return await passed_on(body, headers=headers, media_type=media_type)


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


async def _gzipped(pieces: AsyncIterator[Piece]) -> AsyncGenerator[bytes, None]:
    join = GzipJoin()
    waiting = join.begin()
    async for piece in pieces:
        waiting += join.add(piece)
        if len(waiting) > _SENT_BYTES:
            yield waiting
            waiting = b""
    yield waiting + join.end()


async def _plain(pieces: AsyncIterator[Piece]) -> AsyncGenerator[bytes, None]:
    waiting = b""
    async for piece in pieces:
        waiting += await finish_in_thread(piece.content)
        if len(waiting) > _SENT_BYTES:
            yield waiting
            waiting = b""
    yield waiting


_SENT_BYTES = 64 * 1024
"""What is sent at once: most series have less, and go out in one piece."""
