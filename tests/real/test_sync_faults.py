"""What can't be indexed is on record, makes no comparison dear and is tried again by itself."""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.errors import RecordRefused
from services.index.record import INDEX_VERSION, IndexRecord
from tests.real.sync_stage import Stage, instance_bytes, open_stage

HOUR = timedelta(hours=1)


@pytest.fixture
async def stage(mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc) -> AsyncIterator[Stage]:
    async with open_stage(mongodb, empty_orthanc) as opened:
        yield opened


async def test_a_comparison_with_a_fault_on_record_costs_a_few_calls(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await stage.send([instance_bytes(study, 1, n) for study in (1, 2) for n in range(1, 6)])
    refuse(stage, ids[2], monkeypatch)
    await put_on_record(stage)
    calls = note_calls(stage)
    report = await stage.sync.comparison.run()
    assert (report.up_to_date, report.faults) == (True, {})
    assert calls == [
        "GET /studies",
        "POST /tools/bulk-content",
        "GET /changes",
        "GET /changes",
        "POST /tools/bulk-content",
        "GET /statistics",
        "GET /changes",
    ]
    assert await stage.instance_ids() == {*ids} - {ids[2]}


async def test_a_deletion_that_a_fault_would_hide_is_found(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await stage.send([instance_bytes(1, 1, number) for number in range(1, 6)])
    refuse(stage, ids[2], monkeypatch)
    await put_on_record(stage)
    await stage.database["instances"].insert_one(
        await found(stage, ids[0]) | {"_id": "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af"}
    )
    await stage.database["studies"].update_one({}, {"$inc": {"numberOfInstances": 1}})
    # Now both sides count five.
    assert await stage.sync.comparison.counts.differs()


async def test_faults_that_went_with_their_instance_count_no_more(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await stage.send([instance_bytes(1, 1, number) for number in range(1, 6)])
    refuse(stage, ids[2], monkeypatch)
    await put_on_record(stage)
    await stage.modality.delete(f"/instances/{ids[2]}")
    assert not await stage.sync.comparison.counts.differs()
    await let_pauses_pass(stage)
    await stage.sync.comparison.run()
    assert await stage.database["indexFaults"].count_documents({}) == 0


async def test_a_fault_is_tried_again_when_its_pause_is_over(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await stage.send([instance_bytes(1, 1, number) for number in range(1, 6)])
    with monkeypatch.context() as patch:
        refuse(stage, ids[2], patch)
        await put_on_record(stage)
    report = await stage.sync.comparison.run()
    assert (report.indexed, len(await stage.instance_ids())) == (0, 4)
    await let_pauses_pass(stage)
    report = await stage.sync.comparison.run()
    assert (report.indexed, report.faults) == (1, {})
    assert await stage.is_in_step()
    assert await stage.database["indexFaults"].count_documents({}) == 0


async def test_pauses_grow_and_a_replaced_file_begins_anew(stage: Stage) -> None:
    [instance_id] = await stage.send([instance_bytes(1, 1, 1)])
    faults = stage.sync.reconciler.faults
    pauses = []
    for _ in range(7):
        files = await stage.orthanc.stored_files([instance_id])
        await faults.record(files, {instance_id: "$broken"})
        pauses.append(await pause_of(stage, instance_id))
    assert pauses == [0 * HOUR, 0 * HOUR, HOUR, 4 * HOUR, 24 * HOUR, 24 * HOUR, 24 * HOUR]
    assert await faults.passed_by(files) == {instance_id}
    await stage.modality.delete(f"/instances/{instance_id}")
    await stage.send([instance_bytes(1, 1, 1)])
    files = await stage.orthanc.stored_files([instance_id])
    assert await faults.passed_by(files) == set()
    await faults.record(files, {instance_id: "$broken"})
    assert await pause_of(stage, instance_id) == 0 * HOUR


async def test_a_check_tells_what_is_on_record_and_tries_nothing(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await stage.send([instance_bytes(1, 1, number) for number in range(1, 6)])
    with monkeypatch.context() as patch:
        refuse(stage, ids[2], patch)
        await put_on_record(stage)
    report = await stage.sync.check()
    assert (report.up_to_date, report.faults) == (True, {ids[2]: RecordRefused.default_message})
    assert len(await stage.instance_ids()) == 4


def refuse(stage: Stage, instance_id: str, patch: pytest.MonkeyPatch) -> None:
    """Let one instance be too large for MongoDB."""
    index = stage.indexer.index

    async def refusing(entries: Sequence[IndexRecord]) -> frozenset[str]:
        if any(entry.ids.instance == instance_id for entry in entries):
            raise RecordRefused
        return await index(entries)

    patch.setattr(stage.indexer, "index", refusing)


async def put_on_record(stage: Stage) -> None:
    """Compare until all is passed by, and let all studies count as compared and stable."""
    for _ in range(2):
        await stage.sync.comparison.run()
    fault = await stage.database["indexFaults"].find_one({})
    assert fault is not None
    assert fault["attempts"] >= 3
    for listing in await stage.orthanc.studies(0, 10):
        study = await stage.database["studies"].find_one({"_id": listing.study_id})
        assert study is not None
        compared = {
            "lastUpdate": listing.last_update,
            "studyVersion": study["version"],
            "indexVersion": INDEX_VERSION,
        }
        await stage.database["comparedStudies"].replace_one(
            {"_id": listing.study_id}, compared, upsert=True
        )


async def let_pauses_pass(stage: Stage) -> None:
    past = datetime.now(UTC) - HOUR
    await stage.database["indexFaults"].update_many(
        {}, {"$set": {"failedAt": past, "retryAt": past}}
    )


async def pause_of(stage: Stage, instance_id: str) -> timedelta:
    fault = await stage.database["indexFaults"].find_one({"_id": instance_id})
    assert fault is not None
    assert fault["reason"] == "$broken"
    pause: timedelta = fault["retryAt"] - fault["failedAt"]
    return pause


async def found(stage: Stage, instance_id: str) -> dict[str, Any]:
    instance = await stage.database["instances"].find_one({"_id": instance_id})
    assert instance is not None
    return instance


def note_calls(stage: Stage) -> list[str]:
    calls: list[str] = []

    async def note(request: httpx.Request) -> None:
        calls.append(f"{request.method} {request.url.path}")

    stage.http.event_hooks["request"].append(note)
    return calls
