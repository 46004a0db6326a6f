"""`migrate`: the records of the old system get their Orthanc ids."""

import tracemalloc
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import pytest
from pydicom.data import get_testdata_file
from pymongo.asynchronous.collection import AsyncCollection

from services.dicom.layout import WalkLimits
from services.embedded.mongod import EmbeddedMongod
from services.importing.outcome import FileOutcome
from services.migration import local_files
from services.migration.path_map import PathMap
from services.migration.run import MigrationRun
from services.migration.source import LegacyInstances, open_source
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


async def test_all_files_are_found_by_one_pass_over_the_records(
    runtime: Runtime, source: LegacyInstances, tmp_path: Path
) -> None:
    paths = [tmp_path / f"{number}.dcm" for number in range(12)]
    for number, path in enumerate(paths):
        path.write_bytes(instance_bytes(1, 1, number))
    await source._records.insert_many(
        {"localFilePath": str(path), "instanceNumber": frame} for frame in (1, 2) for path in paths
    )
    commands: list[str] = []
    collection = _noting(source._records, commands)
    migration, outcomes = await _migrate(runtime, LegacyInstances(collection))
    assert (len(outcomes), migration.records) == (12, 24)
    # Counting, looking for what a stopped run left, and the pass; nothing per file but its update.
    assert commands == ["aggregate"] * 3 + ["bulk_write"] * 12


async def test_the_records_that_a_stopped_run_left_are_numbered_with_those_it_linked(
    runtime: Runtime, source: LegacyInstances, tmp_path: Path
) -> None:
    path = tmp_path / "cine.dcm"
    path.write_bytes(instance_bytes(1, 1, 1))
    await source._records.insert_many([_record(path, n, _id=n) for n in (1, 2, 3, 4)])
    await _migrate(runtime, source)
    expected = await source._records.find({}).sort("_id").to_list()
    assert [one["orthancFrameIndex"] for one in expected] == [0, 1, 2, 3]
    added = dict.fromkeys(expected[0].keys() - _record(path, 1).keys() - {"_id"}, "")
    await source._records.update_many({"_id": {"$in": [2, 4]}}, {"$unset": added})
    migration, _ = await _migrate(runtime, source)
    assert await source._records.find({}).sort("_id").to_list() == expected
    assert migration.records == 4


async def test_a_cursor_that_mongodb_forgot_is_opened_again_behind_the_last_file(
    source: LegacyInstances, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_files, "_RECORDS_AT_ONCE", 2)
    names = [f"/disk/{letter}" for letter in "gfedcba"]
    await source._records.insert_many([_record(Path(name), 1) for name in names * 2])
    files = []
    async for file in source.files():
        files.append((file.recorded_path, len(file.record_ids)))
        if file.recorded_path in {"/disk/b", "/disk/d"}:
            assert await _forget_cursors(source) == 1
    assert files == [(name, 2) for name in sorted(names)]


async def test_a_file_of_ten_thousand_records_takes_little_memory(
    source: LegacyInstances,
) -> None:
    path = Path("/disk/cine.dcm")
    filler = "x" * 2_000
    await source._records.insert_many(
        _record(path, 10_000 - n, _id=n, filler=filler) for n in range(10_000)
    )
    tracemalloc.start()
    try:
        [file] = [file async for file in source.files()]
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert list(file.record_ids) == list(range(9_999, -1, -1))
    # The records are 20 MB.
    assert peak_bytes < 12 * 1024 * 1024


async def test_paths_that_differ_in_case_are_two_files_whatever_the_order_of_the_collection(
    source: LegacyInstances,
) -> None:
    database = source._records.database
    await database.create_collection("instances", collation={"locale": "en", "strength": 1})
    names = ["/disk/A", "/disk/a", "/disk/A", "/disk/B"]
    await source._records.insert_many([_record(Path(name), 1) for name in names])
    files = [(file.recorded_path, len(file.record_ids)) async for file in source.files()]
    assert files == [("/disk/A", 2), ("/disk/B", 1), ("/disk/a", 1)]
    assert await source.count_files() == 3


async def _forget_cursors(source: LegacyInstances) -> int:
    """Let MongoDB forget what nobody asked for lately, as after ten minutes."""
    database = source._records.database
    found = await database.client.admin.aggregate(
        [{"$currentOp": {"idleCursors": True}}, {"$match": {"ns": f"{database.name}.instances"}}]
    )
    cursors = [one["cursor"]["cursorId"] async for one in found]
    await database.command("killCursors", "instances", cursors=cursors)
    return len(cursors)


def _noting(
    records: AsyncCollection[dict[str, Any]], commands: list[str]
) -> AsyncCollection[dict[str, Any]]:
    """Note what is asked of a collection."""
    noting = MagicMock(wraps=records)
    for name in ("aggregate", "find", "bulk_write"):
        method = getattr(records, name)
        getattr(noting, name).side_effect = partial(_note, commands, name, method)
    return noting


def _note(
    commands: list[str], name: str, method: Callable[..., Any], *given: Any, **named: Any
) -> Any:  # noqa: ANN401  # passed on
    commands.append(name)
    return method(*given, **named)


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
