"""`migrate`: the records of the old system get their Orthanc ids."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file

from services.dicom.layout import WalkLimits
from services.embedded.mongod import EmbeddedMongod
from services.importing.outcome import FileOutcome
from services.migration.run import MigrationRun
from services.migration.source import LegacyInstances, PathMap, open_source
from services.runtime import Runtime
from tests.real.sync_stage import instance_bytes

SOP_UID = "1.2.826.0.1.3680043.8.498.1.1.1"


@pytest.fixture
async def source(mongodb: EmbeddedMongod) -> AsyncIterator[LegacyInstances]:
    url = mongodb.url.replace("/?", "/old?") if "/?" in mongodb.url else f"{mongodb.url}/old"
    async with open_source(url) as opened:
        yield opened
        await opened._records.drop()


async def test_each_file_is_sent_once_and_all_its_records_are_linked(
    runtime: Runtime, source: LegacyInstances, tmp_path: Path
) -> None:
    path = tmp_path / "cine.dcm"
    path.write_bytes(instance_bytes(1, 1, 1))
    records = source._records
    await records.insert_many(
        [_record(path, number, _id=f"r{number}") for number in (3, 1, 2)]
        + [{"_id": "done", "localFilePath": "/x", "orthancInstanceId": "there"}]
        + [{"_id": "remote", "sopInstanceUID": "1.2"}]
    )
    migration, outcomes = await _migrate(runtime, source)
    assert runtime.orthanc_url is not None
    [outcome] = outcomes
    [instance_id] = outcome.instance_ids
    found = {one["_id"]: one async for one in records.find({})}
    stored = await runtime.database["instances"].find_one({"_id": instance_id})
    assert stored is not None
    for number in (1, 2, 3):
        assert found[f"r{number}"] == {
            **_record(path, number, _id=f"r{number}"),
            "orthancInstanceId": instance_id,
            "orthancStudyId": stored["orthancStudyId"],
            "orthancSeriesId": stored["orthancSeriesId"],
            "orthancFrameIndex": number - 1,
            "orthancUrl": f"{runtime.orthanc_url}/instances/{instance_id}",
            "useOrthancPreview": True,
        }
    assert found["done"] == {"_id": "done", "localFilePath": "/x", "orthancInstanceId": "there"}
    assert found["remote"] == {"_id": "remote", "sopInstanceUID": "1.2"}
    assert (migration.tally.total, migration.records) == (1, 3)
    again, outcomes = await _migrate(runtime, source)
    assert (again.tally.total, outcomes) == (0, [])


async def test_missing_unreadable_and_mistaken_files_are_reported_and_left_alone(
    runtime: Runtime, source: LegacyInstances, tmp_path: Path
) -> None:
    text, other = tmp_path / "text", tmp_path / "z-other.dcm"
    text.write_text("no image")
    other.write_bytes(instance_bytes(1, 1, 2))
    before = [
        _record(tmp_path / "missing.dcm", 1, _id=1),
        _record(text, 1, _id=2),
        _record(other, 1, _id=3),
    ]
    await source._records.insert_many(before)
    _, outcomes = await _migrate(runtime, source)
    assert [outcome.failed[0].code for outcome in outcomes] == [
        "FILE_MISSING",
        "NOT_DICOM",
        "UID_MISMATCH",
    ]
    assert await source._records.find({}).sort("_id").to_list() == before
    assert await runtime.database["instances"].count_documents({}) == 0


async def test_a_dry_run_changes_nothing(
    runtime: Runtime, source: LegacyInstances, tmp_path: Path
) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(instance_bytes(1, 1, 1))
    await source._records.insert_one(_record(path, 1, _id=1))
    migration, outcomes = await _migrate(runtime, source, is_dry=True)
    assert [outcome.stored for outcome in outcomes] == [1]
    assert migration.records == 1
    assert await source._records.find({}).to_list() == [_record(path, 1, _id=1)]
    assert await runtime.database["instances"].count_documents({}) == 0


async def test_a_moved_disk_is_found_by_the_path_map(
    runtime: Runtime, source: LegacyInstances
) -> None:
    real = Path(str(get_testdata_file("CT_small.dcm")))
    await source._records.insert_one({"_id": 1, "localFilePath": f"/old/disk/{real.name}"})
    path_map = PathMap([("/old/disk", str(real.parent))])
    _, outcomes = await _migrate(runtime, source, path_map=path_map)
    assert [outcome.stored for outcome in outcomes] == [1]


async def test_zero_bytes_behind_a_file_are_no_other_content(
    runtime: Runtime, source: LegacyInstances, tmp_path: Path
) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(instance_bytes(1, 1, 1) + bytes(100))
    await source._records.insert_one(_record(path, 1, _id=1))
    _, outcomes = await _migrate(runtime, source)
    assert [(outcome.stored, outcome.failed) for outcome in outcomes] == [(1, ())]


async def test_files_are_read_page_by_page(
    source: LegacyInstances, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.migration.source._FILES_AT_ONCE", 2)
    names = [f"/disk/{letter}" for letter in "edcba"]
    await source._records.insert_many([_record(Path(name), 1) for name in names * 2])
    files = []
    async for file in source.files():
        files.append((file.recorded_path, file.records))
        # What comes behind is found although the first query did not see it.
        if file.recorded_path == "/disk/b":
            await source._records.insert_one(_record(Path("/disk/f"), 1))
    assert files == [*((name, 2) for name in sorted(names)), ("/disk/f", 1)]


def _record(path: Path, number: int, **fields: Any) -> dict[str, Any]:  # a document
    return {
        "sopInstanceUID": SOP_UID,
        "studyInstanceUID": "1.2.826.0.1.3680043.8.498.1",
        "localFilePath": str(path),
        "instanceNumber": number,
        **fields,
    }


async def _migrate(
    runtime: Runtime,
    source: LegacyInstances,
    *,
    path_map: PathMap | None = None,
    is_dry: bool = False,
) -> tuple[MigrationRun, list[FileOutcome]]:
    assert runtime.orthanc is not None
    assert runtime.orthanc_url is not None
    migration = MigrationRun(
        source,
        runtime.ingest,
        runtime.orthanc,
        orthanc_url=runtime.orthanc_url,
        path_map=path_map or PathMap(),
        concurrency=2,
        limits=WalkLimits(),
    )
    await migration.count()
    return migration, [outcome async for outcome in migration.outcomes(is_dry=is_dry)]
