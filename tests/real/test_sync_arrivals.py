"""What is sent into Orthanc appears; what disappears there disappears here."""

import asyncio
from collections.abc import AsyncIterator, Callable
from itertools import count
from typing import Any

import httpx
import pytest

from models.instance import INSTANCE_ORDERS
from services.deletion import Deletion, Level
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.index.record import INDEX_VERSION
from services.orthanc.connection_pool import ConnectionPool
from services.orthanc.identifiers import orthanc_ids
from tests.real.sync_stage import Stage, eventually, instance_bytes, open_stage, running


@pytest.fixture
async def stage(mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc) -> AsyncIterator[Stage]:
    async with open_stage(mongodb, empty_orthanc) as opened:
        yield opened


async def test_what_is_in_orthanc_before_and_after_the_start_is_indexed(stage: Stage) -> None:
    before = await stage.send([instance_bytes(1, 1, number) for number in range(1, 13)])
    async with running(stage.sync):
        await eventually(stage.is_in_step)
        after = await stage.send([instance_bytes(1, 1, 13), instance_bytes(2, 1, 1)])
        await eventually(stage.is_in_step)
    assert await stage.instance_ids() == {*before, *after}
    assert await stage.counts() == {
        "studies": [(1, 13, 13), (1, 1, 1)],
        "series": [(13, 13), (1, 1)],
        "patients": [(2,)],
    }


async def test_arrivals_cost_their_files_and_two_calls_for_all(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await stage.send([instance_bytes(1, 1 + number % 2, number) for number in range(1, 101)])
    calls = record_calls(stage, monkeypatch)
    done = await stage.sync.reconciler.reconcile(ids)
    assert done.indexed == set(ids)
    # Before and after: one list of files each; between them each file once.
    assert sorted(calls) == ["GET file"] * 100 + ["POST bulk-content"] * 2


async def test_what_is_indexed_already_costs_no_header(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await stage.send([instance_bytes(1, 1, number) for number in range(1, 21)])
    await stage.sync.reconciler.reconcile(ids)
    calls = record_calls(stage, monkeypatch)
    done = await stage.sync.reconciler.reconcile(ids)
    assert (done.indexed, done.removed, done.faults) == (set(), set(), {})
    assert calls == ["POST bulk-content"]


async def test_the_header_of_a_file_that_an_upload_is_about_to_index_is_left_to_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = instance_bytes(1, 1, 1), instance_bytes(2, 1, 1)
    study = "1.2.826.0.1.3680043.8.498.1"
    own_id = orthanc_ids("P1", study, f"{study}.1", f"{study}.1.1").instance
    async with running(stage.sync):
        await eventually(stage.is_in_step)
        files = record_files(monkeypatch)
        with stage.indexer.pending.track() as add:
            add(own_id)
            [_, other_id] = await stage.send([own, other])

            async def other_is_there() -> bool:
                return other_id in await stage.instance_ids()

            await eventually(other_is_there)
            assert await stage.instance_ids() == {other_id}
            # By the feed, and perhaps by a comparison that begins at the same time.
            assert {path.split("/")[-2] for path in files} == {other_id}
        # The upload ended without having indexed it.
        await eventually(stage.is_in_step)
    assert await stage.instance_ids() == {own_id, other_id}


async def test_a_large_series_is_rolled_up_by_the_follower_and_not_by_each_commit(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.index.indexer.LARGE_SERIES", 2)
    files = [instance_bytes(1, 1, number) for number in range(1, 5)]
    await stage.sync.reconciler.reconcile(await stage.send(files[:3]))
    assert (await stage.counts())["series"] == [(3, 3)]
    [added] = await stage.send(files[3:])
    done = await stage.sync.reconciler.reconcile([added])
    assert added in await stage.instance_ids()
    assert (await stage.counts())["series"] == [(3, 3)]
    [study] = await stage.orthanc.studies(0, 1)
    assert done.postponed_studies == {study.study_id}
    # As if an upload of another process had written it: only the change says so.
    async with running(stage.sync):
        await stage.send([instance_bytes(1, 1, 5)])
        await eventually(stage.is_in_step)
    assert (await stage.counts())["series"] == [(5, 5)]


async def test_a_deleted_and_resent_instance_is_indexed_with_its_new_revision(
    stage: Stage,
) -> None:
    async with running(stage.sync):
        ids = await stage.send([instance_bytes(1, 1, 1), instance_bytes(1, 1, 2)])
        await eventually(stage.is_in_step)
        before = await stage.database["instances"].find_one({"_id": ids[0]})
        await stage.modality.delete(f"/instances/{ids[0]}")
        await stage.send([instance_bytes(1, 1, 1)])
        expected = (await stage.orthanc.stored_files(ids[:1]))[0].revision

        async def is_renewed() -> bool:
            found = await stage.database["instances"].find_one({"_id": ids[0]})
            return found is not None and found["revision"] == expected

        await eventually(is_renewed)
    assert before is not None
    assert before["revision"] != expected


async def test_an_instance_that_vanishes_while_it_is_indexed_leaves_no_ghost(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await stage.send([instance_bytes(1, 1, number) for number in range(1, 4)])
    index = stage.indexer.index

    async def index_after_deletion(entries: object) -> frozenset[str]:
        await stage.modality.delete(f"/instances/{ids[1]}")
        return await index(entries)  # type: ignore[arg-type]  # passed through

    monkeypatch.setattr(stage.indexer, "index", index_after_deletion)
    await stage.sync.reconciler.reconcile(ids)
    assert await stage.instance_ids() == {ids[0], ids[2]}
    assert (await stage.counts())["series"] == [(2, 2)]


STUDY_2 = "1.2.826.0.1.3680043.8.498.2"


async def everything(stage: Stage) -> dict[str, list[dict[str, Any]]]:
    """Return all documents of the database, by collection."""
    names = await stage.database.list_collection_names()
    return {name: await stage.database[name].find({}).sort("_id").to_list() for name in names}


async def test_a_check_writes_nothing(stage: Stage) -> None:
    ids = await stage.send([instance_bytes(study, 1, 1) for study in (1, 2, 3)])
    await stage.sync.reconciler.reconcile(ids[:2])
    await stage.modality.delete(f"/studies/{orthanc_ids('P1', STUDY_2, '', '').study}")
    # Without records of earlier comparisons, and with studies that agree and that are gone.
    await eventually(lambda: _is_stable(stage))
    before = await everything(stage)
    report = await stage.sync.check()
    assert (report.indexed, report.removed) == (1, 1)
    assert await everything(stage) == before


async def _is_stable(stage: Stage) -> bool:
    studies = (await stage.modality.get("/studies?expand")).json()
    return all(study["IsStable"] for study in studies)


async def test_deletions_in_orthanc_are_found_by_comparing(stage: Stage) -> None:
    ids = await stage.send(
        [instance_bytes(study, 1, number) for study in (1, 2, 3) for number in (1, 2, 3)]
    )
    report = await stage.sync.synchronize()
    assert (report.indexed, report.removed, report.up_to_date) == (9, 0, False)
    study = orthanc_ids("P1", "1.2.826.0.1.3680043.8.498.2", "", "").study
    await stage.modality.delete(f"/studies/{study}")
    await stage.modality.delete(f"/instances/{ids[0]}")
    before = await everything(stage)
    checked = await stage.sync.check()
    assert await everything(stage) == before
    assert (checked.indexed, checked.removed, checked.up_to_date) == (0, 4, False)
    assert len(await stage.instance_ids()) == 9
    report = await stage.sync.synchronize()
    assert (report.indexed, report.removed) == (0, 4)
    assert await stage.is_in_step()
    assert (await stage.sync.synchronize()).up_to_date


async def test_a_deletion_in_a_quiet_study_is_found_while_instances_arrive_without_pause(
    mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc
) -> None:
    async with open_stage(mongodb, empty_orthanc, interval_seconds=0.5) as stage:
        quiet = await stage.send([instance_bytes(1, 1, number) for number in (1, 2)])
        is_over = asyncio.Event()

        async def send_without_pause() -> None:
            for number in count(1):
                if is_over.is_set():
                    return
                await stage.send([instance_bytes(2, 1, number)])

        async def is_gone() -> bool:
            return quiet[0] not in await stage.instance_ids()

        async with running(stage.sync):
            await eventually(stage.is_in_step)
            await _pass_by(stage)
            sending = asyncio.create_task(send_without_pause())
            await stage.modality.delete(f"/instances/{quiet[0]}")
            try:
                await eventually(is_gone)
            finally:
                is_over.set()
                await sending
            await eventually(stage.is_in_step)
        assert (await stage.counts())["series"][0] == (1, 1)


async def test_a_replaced_orthanc_database_is_noticed_and_indexed_anew(stage: Stage) -> None:
    await stage.send([instance_bytes(1, 1, 1)])
    async with running(stage.sync):
        await eventually(stage.is_in_step)
    # A cursor far ahead and of another date: what a fresh database in the old place looks like.
    await stage.database["feedCursors"].update_one({}, {"$set": {"sequence": 10**9}})
    async with running(stage.sync):
        await stage.send([instance_bytes(7, 1, 1)])
        await eventually(stage.is_in_step)
    cursor = await stage.database["feedCursors"].find_one({})
    assert cursor is not None
    assert cursor["sequence"] < 10**9


async def test_wrong_counts_are_found_and_repaired(stage: Stage) -> None:
    await stage.send([instance_bytes(1, 1, number) for number in (1, 2)])
    await stage.sync.synchronize()
    await stage.database["studies"].update_one({}, {"$set": {"numberOfInstances": 7}})
    await stage.database["series"].delete_many({})
    report = await stage.sync.synchronize()
    assert (report.indexed, report.removed, report.recounted) == (0, 0, 1)
    assert await stage.counts() == {
        "studies": [(1, 2, 2)],
        "series": [(2, 2)],
        "patients": [(1,)],
    }


async def test_a_study_that_says_what_no_file_says_is_found_and_repaired(stage: Stage) -> None:
    await stage.send([instance_bytes(1, 1, number) for number in (1, 2)])
    await stage.sync.synchronize()
    before = await stage.database["studies"].find_one({})
    assert before is not None
    # Nothing but the name is another: no count, no version, no time of Orthanc's.
    assert (await stage.sync.synchronize()).up_to_date
    for collection in ("studies", "patients"):
        wrong = {"patientName": "Attacker^Eve", "nameWords": ["attacker", "eve"]}
        await stage.database[collection].update_one({}, {"$set": wrong})
    found = await stage.sync.check()
    assert (found.indexed, found.removed, found.recounted) == (0, 0, 1)
    report = await stage.sync.synchronize()
    assert (report.indexed, report.removed, report.recounted) == (0, 0, 1)
    after = await stage.database["studies"].find_one({})
    patient = await stage.database["patients"].find_one({})
    assert after is not None
    assert patient is not None
    changed = {"version", "updatedAt"}
    assert {k: v for k, v in after.items() if k not in changed} == {
        k: v for k, v in before.items() if k not in changed
    }
    assert patient["patientName"] == before["patientName"]
    assert (await stage.sync.synchronize()).up_to_date


async def test_a_patient_whose_last_study_went_in_a_crash_goes_with_the_next_comparison(
    stage: Stage,
) -> None:
    await stage.send([instance_bytes(1, 1, 1)])
    await stage.sync.synchronize()
    await stage.http.delete(f"/studies/{(await stage.http.get('/studies')).json()[0]}")
    for collection in ("studies", "series", "instances"):
        await stage.database[collection].delete_many({})
    report = await stage.sync.comparison.run()
    assert (report.indexed, report.removed, report.recounted) == (0, 0, 1)
    assert await stage.database["patients"].count_documents({}) == 0


async def test_an_index_of_an_earlier_release_is_read_again_by_itself(stage: Stage) -> None:
    await stage.send([instance_bytes(1, 1, number) for number in (1, 2)])
    await stage.sync.synchronize()
    expected = await stage.database["instances"].find({}).sort("_id").to_list()
    series = await stage.database["series"].find_one({}, {"_id": 0, "stackOrder": 1})
    assert series is not None
    added = (
        *("studyAttributes", "seriesAttributes", "attributesDigest", "indexVersion"),
        *INSTANCE_ORDERS,
    )
    await stage.database["instances"].update_many({}, {"$unset": dict.fromkeys(added, 1)})
    await stage.database["series"].update_many(
        {}, {"$unset": {"studyStatements": 1, "stackOrder": 1, "totalBytes": 1}}
    )
    await stage.database["studies"].update_many(
        {}, {"$unset": {"demographicsOfFiles": 1, "accessionNumbers": 1}}
    )
    await stage.database["comparedStudies"].update_many({}, {"$unset": {"indexVersion": 1}})

    async def is_read_again() -> bool:
        return await stage.database["instances"].find({}).sort("_id").to_list() == expected

    async with running(stage.sync):
        await eventually(is_read_again)
        await eventually(stage.is_in_step)
    assert await stage.database["series"].find_one({}, {"_id": 0, "stackOrder": 1}) == series
    study = await stage.database["studies"].find_one({})
    assert study is not None
    assert len(study["demographicsOfFiles"]) == 1


@pytest.mark.parametrize(
    ("level", "left"),
    [(Level.PATIENT, 1), (Level.STUDY, 2), (Level.SERIES, 3), (Level.INSTANCE, 4)],
)
async def test_deleting_takes_a_resource_out_of_both_stores_twice_is_once(
    stage: Stage, level: Level, left: int
) -> None:
    await stage.send(
        [
            instance_bytes(1, 1, 1),
            instance_bytes(1, 1, 2),
            instance_bytes(1, 2, 1),
            instance_bytes(2, 1, 1),
            instance_bytes(3, 1, 1, patient="P2"),
        ]
    )
    await stage.sync.synchronize()
    study_uid = "1.2.826.0.1.3680043.8.498.1"
    ids = orthanc_ids("P1", study_uid, f"{study_uid}.1", f"{study_uid}.1.1")
    resource = {
        Level.PATIENT: ids.patient,
        Level.STUDY: ids.study,
        Level.SERIES: ids.series,
        Level.INSTANCE: ids.instance,
    }[level]
    deletion = Deletion(stage.orthanc, stage.database, stage.sync.reconciler)
    doomed = await deletion.find(level, resource)
    assert doomed.patient_ids == {ids.patient}
    assert ids.study in doomed.study_ids
    deleted = await deletion.delete(doomed)
    assert len(deleted[Level.INSTANCE]) == 5 - left
    assert resource in deleted[level]
    for each, identifiers in deleted.items():
        # What still holds something is not among them.
        assert (
            await stage.database[each.value].count_documents({"_id": {"$in": [*identifiers]}}) == 0
        )
    again = await deletion.delete(doomed)
    assert again[Level.INSTANCE] == frozenset()
    assert (await deletion.find(level, resource)).instance_ids == frozenset()
    assert len(await stage.held_ids()) == left
    assert await stage.is_in_step()


async def _pass_by(stage: Stage) -> None:
    """Let all studies count as compared, as they do when they are stable."""
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


def record_calls(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the requests to Orthanc from now on, those of threads that read files included."""
    calls: list[str] = []

    async def record(request: httpx.Request) -> None:
        calls.append(f"{request.method} {request.url.path.rpartition('/')[2]}")

    stage.http.event_hooks["request"].append(record)
    record_files(monkeypatch, lambda path: calls.append(f"GET {path.rpartition('/')[2]}"))
    return calls


def record_files(
    monkeypatch: pytest.MonkeyPatch, record: Callable[[str], None] | None = None
) -> list[str]:
    """Record the paths of files that threads read from Orthanc from now on."""
    paths: list[str] = []
    record = record or paths.append
    get_into = ConnectionPool.get_into

    def record_and_get(pool: ConnectionPool, path: str, *args: Any, **kwargs: Any) -> None:
        record(path)
        get_into(pool, path, *args, **kwargs)

    monkeypatch.setattr(ConnectionPool, "get_into", record_and_get)
    return paths
