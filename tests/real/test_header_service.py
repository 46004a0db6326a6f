"""Headers read on demand from a real Orthanc."""

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydicom.data import get_testdata_file

from services.dicom.json_model import header_json
from services.embedded.orthanc import EmbeddedOrthanc
from services.errors import OrthancNotFound, PacsDisabled
from services.orthanc.answers import StoredFile
from services.orthanc.beginning import FileBeginnings
from services.orthanc.client import Orthanc, OrthancClient, open_orthanc
from services.query import header_json as header_service
from services.query.header_json import HeaderService
from tests.patience import PATIENCE_SECONDS
from tests.real.sync_stage import modality_client

REVISION = "deadbeef"
GONE = "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af"


def opened(orthanc: EmbeddedOrthanc) -> AbstractAsyncContextManager[Orthanc]:
    return open_orthanc(orthanc.url, orthanc.username, orthanc.password, frame_seconds=30)


def record_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the ids of the instances whose files are read, as they are read."""
    asked: list[str] = []
    read = FileBeginnings.read

    async def recording(beginnings: FileBeginnings, stored: StoredFile, *args: Any) -> object:
        asked.append(stored.instance_id)
        return await read(beginnings, stored, *args)

    monkeypatch.setattr(FileBeginnings, "read", recording)
    return asked


def file_of(name: str) -> Path:
    return Path(str(get_testdata_file(name)))


async def post(orthanc: EmbeddedOrthanc, path: Path) -> str:
    async with modality_client(orthanc) as http:
        content = await asyncio.to_thread(path.read_bytes)
        answer = await http.post("/instances", content=content)
        return str(answer.raise_for_status().json()["ID"])


@pytest.mark.parametrize(
    "name", ["CT_small.dcm", "JPEG2000.dcm", "examples_overlay.dcm", "reportsi.dcm", "rtplan.dcm"]
)
async def test_the_header_is_that_of_the_file(empty_orthanc: EmbeddedOrthanc, name: str) -> None:
    path = file_of(name)
    instance_id = await post(empty_orthanc, path)
    async with opened(empty_orthanc) as orthanc:
        found = await HeaderService(orthanc).dicom_json(instance_id, REVISION)
    with path.open("rb") as file:
        assert found.elements == header_json(file)
    assert found.content == orjson.dumps(found.elements)


async def test_a_header_is_read_once_for_many_who_ask_at_once(
    empty_orthanc: EmbeddedOrthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    instance_id = await post(empty_orthanc, file_of("CT_small.dcm"))
    asked = record_reads(monkeypatch)
    async with opened(empty_orthanc) as orthanc:
        service = HeaderService(orthanc)
        headers = await asyncio.gather(
            *(service.dicom_json(instance_id, REVISION) for _ in range(20))
        )
    assert all(header == headers[0] for header in headers)
    assert asked == [instance_id]


async def test_what_is_remembered_is_bounded_in_bytes(
    empty_orthanc: EmbeddedOrthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["CT_small.dcm", "rtplan.dcm", "reportsi.dcm", "MR_small.dcm"]
    instance_ids = [await post(empty_orthanc, file_of(name)) for name in names]
    asked = record_reads(monkeypatch)
    async with opened(empty_orthanc) as orthanc:
        service = HeaderService(orthanc)
        sizes = [(await service.dicom_json(one, REVISION)).json_bytes for one in instance_ids]
        assert service.kept_bytes == sum(sizes)
        monkeypatch.setattr(header_service, "_KEPT_BYTES", max(sizes) - 1)
        smaller = HeaderService(orthanc)
        asked.clear()
        for _ in range(2):
            for one in instance_ids:
                await smaller.dicom_json(one, REVISION)
                assert smaller.kept_bytes < max(sizes)
    largest = instance_ids[sizes.index(max(sizes))]
    assert asked.count(largest) == 2


async def test_reading_goes_on_for_who_still_waits_and_ends_with_the_last(
    empty_orthanc: EmbeddedOrthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(_: OrthancClient, __: Sequence[str]) -> list[StoredFile]:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError("this reading is cancelled")

    async with opened(empty_orthanc) as orthanc:
        service = HeaderService(orthanc)
        monkeypatch.setattr(OrthancClient, "stored_files", hang)
        first, last = (asyncio.create_task(service.dicom_json(GONE, REVISION)) for _ in range(2))
        await begun.wait()
        first.cancel()
        await asyncio.wait({first})
        assert not ended.is_set()
        last.cancel()
        await asyncio.wait({last})
        async with asyncio.timeout(PATIENCE_SECONDS):
            await ended.wait()
        monkeypatch.undo()
        with pytest.raises(OrthancNotFound):
            await service.dicom_json(GONE, REVISION)


async def test_an_instance_that_is_gone_has_no_header(empty_orthanc: EmbeddedOrthanc) -> None:
    async with opened(empty_orthanc) as orthanc:
        with pytest.raises(OrthancNotFound):
            await HeaderService(orthanc).dicom_json(GONE, REVISION)


async def test_without_orthanc_there_are_no_headers() -> None:
    with pytest.raises(PacsDisabled):
        await HeaderService(None).dicom_json(GONE, REVISION)
