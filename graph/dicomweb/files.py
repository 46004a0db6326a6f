"""WADO-RS instances, series and studies as files, and bulk data (PS3.18 10.4.1.1.1, 10.4.1.1.5)."""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from http import HTTPStatus
from typing import Any

from starlette.responses import Response
from starlette.routing import BaseRoute

from graph.dicomweb.exchange import Exchange, Mount
from graph.dicomweb.frames import OCTETS
from graph.dicomweb.streams import Multipart
from graph.http.accept import MediaRange, NotAcceptable
from graph.http.client_slots import ClientSlots
from graph.http.conditional import names_tag
from graph.http.ranges import Span
from graph.http.streams import in_turn, passed_on
from services.audit import Action
from services.dicom.json_model import bulk_value
from services.dicomweb.resources import SeriesResource, StudyResource
from services.downloads.service import part_of_file
from services.errors import Forbidden, NotFound, PacsDisabled
from services.orthanc.client import OrthancClient

DICOM = "application/dicom"
_ZIP = "application/zip"

_Instance = Mapping[str, Any]
"""Identifier, transfer syntax and size, by stored names."""


def file_routes(mount: Mount, slots: ClientSlots) -> list[BaseRoute]:
    """Make the routes of files.

    Args:
        mount: Where they stand.
        slots: What one client may download at once.
    """
    series = "/studies/{study}/series/{series}"
    instance = f"{series}/instances/{{instance}}"

    async def study(exchange: Exchange) -> Response:
        return await _study(exchange, slots)

    async def one_series(exchange: Exchange) -> Response:
        return await _series(exchange, slots)

    async def one_instance(exchange: Exchange) -> Response:
        return await _instance(exchange, slots)

    return [
        mount.route(f"{instance}/bulkdata/{{path:path}}", _bulk_data),
        mount.route(instance, one_instance),
        mount.route(series, one_series),
        mount.route("/studies/{study}", study),
    ]


async def _study(exchange: Exchange, slots: ClientSlots) -> Response:
    study = await exchange.study()
    series = await exchange.runtime.resources.series_of(study)
    if _is_zip(exchange.accepted):
        return await _archive(exchange, slots, study, _orthanc(exchange).study_archive(study.id))
    return await _files(exchange, slots, study, series)


async def _series(exchange: Exchange, slots: ClientSlots) -> Response:
    series = await exchange.series()
    if _is_zip(exchange.accepted):
        opened = _orthanc(exchange).series_archive(series.id)
        return await _archive(exchange, slots, series.study, opened)
    return await _files(exchange, slots, series.study, [series])


def _is_zip(accepted: Sequence[MediaRange]) -> bool:
    """Choose between files in parts and a ZIP.

    Raises:
        NotAcceptable: Neither is accepted.
    """
    for one in accepted:
        if one.media_type == "*/*" or (one.is_multipart and one.matches_parts(DICOM)):
            return False
        if one.matches(_ZIP):
            return True
    raise NotAcceptable(f'This is answered as multipart/related; type="{DICOM}" or {_ZIP}.')


async def _archive(
    exchange: Exchange,
    slots: ClientSlots,
    study: StudyResource,
    opened: AbstractAsyncContextManager[AsyncIterator[bytes]],
) -> Response:
    async def parts() -> AsyncGenerator[bytes, None]:
        with slots.hold(exchange.request.scope):
            async with opened as chunks:
                async for chunk in chunks:
                    yield chunk

    async with exchange.recording(Action.ARCHIVE, study.id, study.patient_id):
        return await passed_on(parts(), headers=_headers(), media_type=_ZIP)


async def _files(
    exchange: Exchange, slots: ClientSlots, study: StudyResource, series: Sequence[SeriesResource]
) -> Response:
    """Answer files, one after the other, as they are stored."""
    orthanc, syntax = _orthanc(exchange), _asked_syntax(exchange.accepted)
    multipart = Multipart(DICOM)
    held = [await exchange.runtime.resources.instances_of(one) for one in series]
    instances = [instance for of_series in held for instance in of_series]
    _check_syntax(instances, syntax)

    async def parts() -> AsyncGenerator[bytes, None]:
        with slots.hold(exchange.request.scope):
            for instance in instances:
                async for part in _file_part(orthanc, instance, multipart):
                    yield part
            yield multipart.end()

    async with exchange.recording(Action.ARCHIVE, study.id, study.patient_id) as event:
        event.number_of_objects = len(instances)
        return await passed_on(parts(), headers=_headers(), media_type=multipart.media_type)


async def _instance(exchange: Exchange, slots: ClientSlots) -> Response:
    """Answer one file, alone or as a part; alone with its size, and parts of it."""
    accepted = exchange.accepted
    is_single = _is_single(accepted, DICOM)
    document = await exchange.instance()
    orthanc = _orthanc(exchange)
    instance = document.model_dump(by_alias=True)
    _check_syntax([instance], _asked_syntax(accepted))
    headers = _headers() | {"ETag": f'"{document.revision}"'}
    headers["Cache-Control"] = "private, no-cache"
    if names_tag(exchange.request.scope, headers["ETag"]):
        return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
    if not is_single:
        multipart = Multipart(DICOM)
        body = in_turn(_one_part(orthanc, instance, multipart), slots, exchange.request.scope)
        async with exchange.viewing(document, action=Action.ARCHIVE):
            return await passed_on(body, headers=headers, media_type=multipart.media_type)
    span = Span.asked(exchange.request.headers, document.file_size_bytes, etag=headers["ETag"])
    headers |= span.headers | {"Content-Length": str(len(span))}
    if not len(span):
        return Response(status_code=span.status, headers=headers)
    body = part_of_file(orthanc, document.id, document.revision, span.begin, span.end)
    async with exchange.viewing(document, action=Action.ARCHIVE):
        return await passed_on(
            in_turn(body, slots, exchange.request.scope),
            status=span.status,
            headers=headers,
            media_type=_content_type(instance),
        )


async def _one_part(
    orthanc: OrthancClient, instance: _Instance, multipart: Multipart
) -> AsyncGenerator[bytes, None]:
    async for part in _file_part(orthanc, instance, multipart):
        yield part
    yield multipart.end()


async def _file_part(
    orthanc: OrthancClient, instance: _Instance, multipart: Multipart
) -> AsyncGenerator[bytes, None]:
    async with orthanc.download(instance["_id"]) as chunks:
        head = multipart.head(_content_type(instance))
        async for chunk in chunks:
            yield head + chunk
            head = b""


async def _bulk_data(exchange: Exchange) -> Response:
    """Answer a long binary value of a header."""
    orthanc = exchange.runtime.whole_orthanc
    if orthanc is None:
        raise PacsDisabled
    is_single = _is_single(exchange.accepted, OCTETS)
    document = await exchange.instance()
    headers = {"ETag": f'"{document.revision}"', "Cache-Control": "private, no-cache"}
    async with exchange.viewing(document):
        if names_tag(exchange.request.scope, headers["ETag"]):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        stored = await orthanc.client.stored_files([document.id])
        if not stored:
            raise NotFound("There is no such instance.")
        path = exchange.path("path")
        value = await orthanc.files.beginnings.read(
            stored[0], lambda file, _: bulk_value(file, path)
        )
    if value is None:
        raise NotFound("There is no such bulk data.")
    if not is_single:
        multipart = Multipart(OCTETS)
        body = multipart.head(OCTETS) + value + multipart.end()
        return Response(body, headers=headers, media_type=multipart.media_type)
    span = Span.asked(exchange.request.headers, len(value), etag=headers["ETag"])
    headers |= span.headers
    return Response(value[span.begin : span.end], span.status, headers, OCTETS)


def _is_single(accepted: Sequence[MediaRange], media_type: str) -> bool:
    """Choose between one part alone and `multipart/related`, which is the usual form.

    Raises:
        NotAcceptable: Neither is accepted.
    """
    for one in accepted:
        if one.media_type == "*/*" or (one.is_multipart and one.matches_parts(media_type)):
            return False
        if one.matches(media_type):
            return True
    raise NotAcceptable(f'This is answered as {media_type}, alone or in "multipart/related".')


def _asked_syntax(accepted: Sequence[MediaRange]) -> set[str]:
    """Return the transfer syntaxes that are accepted; none: any, for files stay as they are."""
    asked = {one.parameters.get("transfer-syntax", "*") for one in accepted}
    return set() if "*" in asked else asked


def _check_syntax(instances: Sequence[_Instance], asked: set[str]) -> None:
    """Check that stored files are of a transfer syntax that is accepted.

    Raises:
        NotAcceptable: One is not: files are not transcoded.
    """
    if asked and any(instance.get("transferSyntaxUID") not in asked for instance in instances):
        raise NotAcceptable("Files are answered in the transfer syntax that they are stored in.")


def _content_type(instance: _Instance) -> str:
    syntax = instance.get("transferSyntaxUID")
    return DICOM if syntax is None else f"{DICOM}; transfer-syntax={syntax}"


def _headers() -> dict[str, str]:
    return {
        "Cache-Control": "private, no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "no-referrer",
        "Vary": "Accept",
    }


def _orthanc(exchange: Exchange) -> OrthancClient:
    """Return where files are.

    Raises:
        Forbidden: Images may be looked at, but not taken away.
        PacsDisabled: There is no Orthanc.
    """
    if not exchange.principal.may_download:
        raise Forbidden("This share does not allow downloads.")
    orthanc = exchange.runtime.orthanc
    if orthanc is None:
        raise PacsDisabled
    return orthanc
