"""WADO-RS metadata on real stores, and the store of headers behind it."""

import asyncio
import gzip
import io
import zlib
from typing import Any

import orjson
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from services.auth.roles import Principal, Role
from services.auth.scope import Scope
from services.dicom.json_model import header_json
from services.embedded.orthanc import EmbeddedOrthanc
from services.orthanc.answers import StoredFile
from services.orthanc.beginning import FileBeginnings
from services.query import series_headers
from services.tasks import cancel_and_wait
from tests.real.dicomweb_stage import ROOT, file_named, made, slices, store, uid
from tests.real.sync_stage import eventually, modality_client
from tests.servers import RunningServer

P1 = f"{ROOT}/studies/{uid('P1')}"
SERIES = f"{P1}/series/{uid('P1', 0)}"


def by_uid(models: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {model["00080018"]["Value"][0]: model for model in models}


def expected(files: list[bytes]) -> dict[str, dict[str, Any]]:
    return by_uid([header_json(io.BytesIO(file)) for file in files])


def forget_arrivals(server: RunningServer) -> None:
    """Let headers be read from the files, as after a restart."""
    arrived = server.runtime.series_headers.arrived
    for series_id in arrived.quiet(0):
        arrived.discard(series_id)
    assert arrived.size_bytes == 0


async def stored_chunks(server: RunningServer) -> int:
    return await server.runtime.database["seriesHeaders"].count_documents({})


@pytest.mark.no_cover
async def test_metadata_of_all_levels_are_those_of_the_files(server: RunningServer) -> None:
    files = slices("P1", 130, series=2)
    await store(server, [*files, *slices("P2", 1)])
    models = expected(files)
    answer = await server.http.get(f"{P1}/metadata")
    assert answer.headers["content-type"] == "application/dicom+json"
    assert answer.headers["content-encoding"] == "gzip"
    assert by_uid(answer.json()) == models
    assert await stored_chunks(server) == 4
    series = (await server.http.get(f"{SERIES}/metadata")).json()
    assert by_uid(series) == expected(files[::2])
    one = uid("P1", "instance", 7)
    path = f"{P1}/series/{uid('P1', 1)}/instances/{one}/metadata"
    assert (await server.http.get(path)).json() == [models[one]]
    plain = await server.http.get(f"{P1}/metadata", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert by_uid(plain.json()) == models


async def test_the_compressed_body_is_one_member(server: RunningServer) -> None:
    files = slices("P1", 70)
    await store(server, files)
    async with server.http.stream("GET", f"{SERIES}/metadata") as answer:
        raw = b"".join([part async for part in answer.aiter_raw()])
    inflating = zlib.decompressobj(16 + zlib.MAX_WBITS)
    assert by_uid(orjson.loads(inflating.decompress(raw))) == expected(files)
    assert inflating.unused_data == b""
    assert gzip.decompress(raw)


async def test_what_is_kept_is_answered_without_orthanc(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = slices("P1", 3)
    await store(server, files)
    before = await server.http.get(f"{SERIES}/metadata")
    monkeypatch.setattr(server.runtime.series_headers, "_orthanc", None)
    again = await server.http.get(f"{SERIES}/metadata")
    assert again.json() == before.json()
    etag = before.headers["etag"]
    kept = await server.http.get(f"{SERIES}/metadata", headers={"If-None-Match": etag})
    assert kept.status_code == 304
    assert kept.headers["etag"] == etag
    monkeypatch.undo()
    more = slices("P1", 4)
    await store(server, more[3:])
    changed = await server.http.get(f"{SERIES}/metadata", headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert by_uid(changed.json()) == expected(more)
    assert await stored_chunks(server) == 2


async def test_many_who_ask_at_once_have_it_made_once(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = slices("P1", 20)
    await store(server, files)
    forget_arrivals(server)
    read: list[str] = []
    actual = FileBeginnings.read

    async def counting(self: FileBeginnings, stored: StoredFile, *rest: Any) -> bytes:
        read.append(stored.instance_id)
        content: bytes = await actual(self, stored, *rest)
        return content

    monkeypatch.setattr(FileBeginnings, "read", counting)
    answers = await asyncio.gather(*(server.http.get(f"{SERIES}/metadata") for _ in range(8)))
    models = expected(files)
    assert all(by_uid(answer.json()) == models for answer in answers)
    assert len(read) == 20


@pytest.mark.parametrize("is_sent_here", [True, False])
async def test_headers_are_made_of_what_was_read_to_index_them(
    server: RunningServer,
    orthanc: EmbeddedOrthanc,
    monkeypatch: pytest.MonkeyPatch,
    *,
    is_sent_here: bool,
) -> None:
    files = slices("P1", 70)
    if is_sent_here:
        await store(server, files)
    else:
        await arrive(server, orthanc, files)
    for name in ("_QUIET_SECONDS", "_LOOK_SECONDS"):
        monkeypatch.setattr(series_headers, name, 0.0)
    monkeypatch.setattr(server.runtime.series_headers, "_orthanc", None)
    making = asyncio.create_task(server.runtime.series_headers.run())

    async def are_made() -> bool:
        return not server.runtime.series_headers.arrived.size_bytes

    await eventually(are_made)
    await cancel_and_wait(making)
    assert await stored_chunks(server) == 2
    answer = await server.http.get(f"{SERIES}/metadata")
    assert by_uid(answer.json()) == expected(files)


async def arrive(server: RunningServer, orthanc: EmbeddedOrthanc, files: list[bytes]) -> None:
    """Store files in Orthanc, as a modality does, and index them."""
    assert server.runtime.sync is not None
    async with modality_client(orthanc) as http:
        ids = [(await http.post("/instances", content=file)).json()["ID"] for file in files]
    await server.runtime.sync.reconciler.reconcile(ids)


async def test_what_was_deleted_is_in_no_header(server: RunningServer) -> None:
    await store(server, slices("P1", 3))
    assert (await server.http.get(f"{SERIES}/metadata")).status_code == 200
    data: Any = await server.graphql(
        "query($uid: String!) { study(studyInstanceUID: $uid) { id } }", uid=uid("P1")
    )
    await server.graphql(
        "mutation($id: ID!) { deleteStudy(id: $id) { deletedInstances } }", id=data["study"]["id"]
    )
    assert await stored_chunks(server) == 0


async def test_nothing_outside_a_scope_has_metadata(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store(server, [*slices("P1", 1), *slices("P2", 1)])
    study = await server.runtime.database["studies"].find_one({"patientID": "P2"})
    assert study is not None
    limited = Principal("share", Role.VIEWER, Scope(frozenset({study["_id"]})))

    async def authenticate(_: object) -> Principal:
        return limited

    monkeypatch.setattr(server.runtime.authenticator, "authenticate", authenticate)
    for path in (P1, SERIES, f"{SERIES}/instances/{uid('P1', 'instance', 0)}"):
        outside = await server.http.get(f"{path}/metadata")
        missing = await server.http.get(f"{path}9/metadata")
        assert outside.status_code == missing.status_code == 404
    assert (await server.http.get(f"{ROOT}/studies/{uid('P2')}/metadata")).status_code == 200


@pytest.mark.no_cover
async def test_tags_come_from_the_store(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = slices("P1", 200)
    await store(server, files)
    query = "query($uid: String!) { series(seriesInstanceUID: $uid) { instances { tags } } }"
    first: Any = await server.graphql(query, uid=uid("P1", 0))
    assert by_uid([one["tags"] for one in first["series"]["instances"]]) == expected(files)
    assert await stored_chunks(server) == 4
    monkeypatch.setattr(server.runtime.series_headers, "_orthanc", None)
    again: Any = await server.graphql(query, uid=uid("P1", 0))
    assert again == first


def with_long_binaries() -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(made(SOPInstanceUID=uid("long"))))
    item = Dataset()
    item.add_new(0x00091001, "OB", b"\1" * 70_000)
    item.add_new(0x00090010, "LO", "TEST")
    dataset.add_new(0x00091010, "OW", b"\2" * 70_000)
    dataset.IconImageSequence = Sequence([Dataset(), item])
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


async def test_long_binary_values_have_an_address(server: RunningServer) -> None:
    await store(server, [with_long_binaries()])
    dataset = pydicom.dcmread(io.BytesIO(file_named("CT_small.dcm")))
    series = f"{ROOT}/studies/{dataset.StudyInstanceUID}/series/{dataset.SeriesInstanceUID}"
    instance = f"{series}/instances/{uid('long')}"
    for path in (series, instance):
        (model,) = (await server.http.get(f"{path}/metadata")).json()
        assert model["00091010"] == {
            "vr": "OW",
            "BulkDataURI": f"{server.url}{instance}/bulkdata/00091010",
        }
        address = model["00880200"]["Value"][1]["00091001"]["BulkDataURI"]
        assert address == f"{server.url}{instance}/bulkdata/00880200/2/00091001"
