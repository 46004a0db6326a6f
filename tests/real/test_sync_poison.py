"""An instance that Orthanc or MongoDB can't take does not hold the others up."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import replace
from typing import Any

import pytest

from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.errors import Error, OrthancOutcomeUnknown, OrthancTimedOut, RecordRefused
from services.index.record import IndexRecord
from services.orthanc.answers import StoredFile
from services.orthanc.beginning import FileBeginnings
from services.sync import reader as reading
from services.sync.faults import MAX_ATTEMPTS
from services.sync.follower import FeedCursor, FeedPosition, Follower
from services.sync.isolation import PATIENCE, PoisonIsolator
from services.sync.reconciler import Reconciliation
from tests.real.sync_stage import Stage, eventually, instance_bytes, open_stage


@pytest.fixture
async def stage(mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc) -> AsyncIterator[Stage]:
    async with open_stage(mongodb, empty_orthanc) as opened:
        yield opened


async def test_it_is_found_by_halving_given_up_and_the_cursor_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await FeedCursor(stage.database).move(await _beginning(stage), 1)
    ids = await stage.send([instance_bytes(1, 1, number) for number in range(1, 8)])
    poison = ids[3]
    asked = _break_at(stage, poison, monkeypatch)
    await _follow_to_the_end(stage)
    assert await stage.instance_ids() == {*ids} - {poison}
    fault = await stage.database["indexFaults"].find_one({})
    assert fault is not None
    assert (fault["_id"], fault["attempts"]) == (poison, MAX_ATTEMPTS)
    # Whole pages first, then halves down to the one.
    assert [len(batch) for batch in asked[:4]] == [7, 7, 7, 7]
    assert [poison] in asked


async def test_a_header_that_times_out_is_put_on_record_and_the_cursor_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.sync.reconciler.reconcile(await stage.send([instance_bytes(1, 1, 1)]))
    await FeedCursor(stage.database).move(await _beginning(stage), 1)
    ids = await stage.send([instance_bytes(2, 1, number) for number in range(1, 4)])
    _fail_at(ids[1], OrthancTimedOut, monkeypatch)
    await _follow_to_the_end(stage)
    assert (await stage.held_ids()) - (await stage.instance_ids()) == {ids[1]}
    fault = await stage.database["indexFaults"].find_one({})
    assert fault is not None
    assert (fault["_id"], fault["attempts"]) == (ids[1], 1)


async def test_an_orthanc_that_reads_no_header_makes_the_feed_wait_and_nothing_is_put_on_record(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.sync.reconciler.reconcile(await stage.send([instance_bytes(1, 1, 1)]))
    await FeedCursor(stage.database).move(await _beginning(stage), 1)
    ids = await stage.send([instance_bytes(2, 1, number) for number in range(1, 4)])
    asked: list[str] = []

    async def hanging(_: FileBeginnings, stored: StoredFile, *__: object, **___: object) -> object:
        asked.append(stored.instance_id)
        raise OrthancTimedOut

    async def has_been_asked_often() -> bool:
        return asked.count(ids[0]) > MAX_ATTEMPTS

    with monkeypatch.context() as patch:
        patch.setattr(FileBeginnings, "read", hanging)
        follower = _follower(stage)
        following = asyncio.create_task(follower.follow(1))
        await eventually(has_been_asked_often)
        assert len(await stage.instance_ids()) == 1
        assert follower.state.last_error == OrthancTimedOut.default_message
        # Not during a reading: one that ends after the fault puts its instances on record.
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
    following = asyncio.create_task(follower.follow(1))
    await eventually(stage.is_in_step)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert await stage.database["indexFaults"].count_documents({}) == 0


async def test_a_record_that_mongodb_does_not_take_is_put_on_record_and_the_cursor_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await FeedCursor(stage.database).move(await _beginning(stage), 1)
    ids = await stage.send([instance_bytes(1, 1, number) for number in range(1, 4)])
    make_record = reading._record

    def swollen(*given: Any) -> IndexRecord:  # passed on
        entry = make_record(*given)
        if entry.ids.instance == ids[1]:
            return replace(entry, not_renderable_reason="x" * 17_000_000)
        return entry

    monkeypatch.setattr(reading, "_record", swollen)
    await _follow_to_the_end(stage)
    assert await stage.instance_ids() == {ids[0], ids[2]}
    fault = await stage.database["indexFaults"].find_one({})
    assert fault is not None
    assert (fault["_id"], fault["reason"]) == (ids[1], RecordRefused.default_message)
    assert await stage.counts() == {
        "studies": [(1, 2, 2)], "series": [(2, 2)], "patients": [(1,)],
    }  # fmt: skip


async def test_a_comparison_finds_what_stops_orthanc_and_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await stage.send([instance_bytes(study, 1, n) for study in (1, 2) for n in (1, 2, 3)])
    with monkeypatch.context() as patch:
        _break_at(stage, ids[1], patch)
        for _ in range(PATIENCE):
            with pytest.raises(OrthancOutcomeUnknown):
                await stage.sync.comparison.run()
        report = await stage.sync.comparison.run()
    assert list(report.faults) == [ids[1]]
    assert await stage.instance_ids() == {*ids} - {ids[1]}


async def test_parents_that_are_lost_are_made_again_although_every_header_stops_orthanc(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = await stage.send([instance_bytes(study, 1, n) for study in (1, 2) for n in (1, 2)])
    await stage.sync.reconciler.reconcile(ids)
    for collection in ("patients", "studies", "series"):
        await stage.database[collection].delete_many({})
    for instance_id in ids:
        _fail_at(instance_id, OrthancOutcomeUnknown, monkeypatch)
    report = await stage.sync.comparison.run()
    assert (report.recounted, report.faults) == (2, {})
    assert await stage.is_in_step()
    assert await stage.counts() == {
        "studies": [(1, 2, 2)] * 2, "series": [(2, 2)] * 2, "patients": [(2,)],
    }  # fmt: skip


async def test_a_series_that_mongodb_does_not_take_does_not_keep_others_from_being_counted(
    stage: Stage,
) -> None:
    numbers = {1: 2, 2: 3, 3: 1}
    files = [instance_bytes(study, 1, n) for study, most in numbers.items() for n in range(most)]
    await stage.sync.reconciler.reconcile(await stage.send(files))
    studies = stage.database["studies"]
    for collection in ("studies", "series"):
        wrong = {"$set": {"numberOfInstances": 9}}
        await stage.database[collection].update_many({}, wrong)
    rule = {"numberOfInstances": {"$ne": 3}}
    await stage.database.command("collMod", "series", validator=rule)
    await stage.sync.comparison.roll_ups.roll_up(
        [study["_id"] async for study in studies.find({}, {"_id": 1})]
    )
    stored = await studies.find({}).sort("studyInstanceUID").to_list()
    assert [study["numberOfInstances"] for study in stored] == [2, 9, 1]


async def test_what_was_given_up_is_tried_again_when_somebody_asks_to_synchronize(
    stage: Stage,
) -> None:
    ids = await stage.send([instance_bytes(1, 1, number) for number in (1, 2)])
    files = await stage.orthanc.stored_files(ids[:1])
    reasons = {ids[0]: "it broke"}
    await stage.sync.reconciler.faults.record(files, reasons, least_attempts=MAX_ATTEMPTS)
    await stage.sync.reconciler.reconcile(ids)
    assert await stage.instance_ids() == {ids[1]}
    await stage.sync.synchronize()
    assert await stage.instance_ids() == {*ids}
    assert await stage.database["indexFaults"].count_documents({}) == 0


def _follower(stage: Stage) -> Follower:
    return Follower(
        stage.orthanc,
        FeedCursor(stage.database),
        PoisonIsolator(stage.orthanc, stage.sync.reconciler, pause_seconds=0.02),
        stage.sync.comparison.roll_ups,
        poll_seconds=0.02,
        on_gap=lambda: None,
    )


async def _follow_to_the_end(stage: Stage) -> None:
    follower = _follower(stage)
    following = asyncio.create_task(follower.follow(1))

    async def has_passed() -> bool:
        newest = (await stage.orthanc.newest_change()).last
        return follower.state.position == newest

    await eventually(has_passed)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)


async def _beginning(stage: Stage) -> FeedPosition:
    return FeedPosition.after(await stage.orthanc.newest_change())


def _fail_at(poison: str, error: type[Error], monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the reading of one file fail."""
    read = FileBeginnings.read

    async def failing(
        beginnings: FileBeginnings, stored: StoredFile, *args: Any, **options: Any
    ) -> object:
        if stored.instance_id == poison:
            raise error
        return await read(beginnings, stored, *args, **options)

    monkeypatch.setattr(FileBeginnings, "read", failing)


def _break_at(stage: Stage, poison: str, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Let Orthanc's answer break off for this instance; returns what was asked, as it is asked."""
    asked: list[list[str]] = []
    reconcile = stage.sync.reconciler.reconcile

    async def breaking(instance_ids: Iterable[str]) -> Reconciliation:
        asked.append(list(instance_ids))
        if poison in asked[-1]:
            raise OrthancOutcomeUnknown
        return await reconcile(asked[-1])

    monkeypatch.setattr(stage.sync.reconciler, "reconcile", breaking)
    return asked
