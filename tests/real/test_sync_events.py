"""Study events come from MongoDB, whichever process wrote."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest

from services.auth.scope import ALL, Scope
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.errors import InvalidInput, LimitExceeded
from services.labels.service import Labels
from services.sync.events import (
    LISTENER_MAX_EVENTS,
    Listener,
    StudyChange,
    StudyChangeKind,
    StudyEvents,
)
from tests.patience import PATIENCE_SECONDS
from tests.real.sync_stage import Stage, instance_bytes, open_stage

UID = "1.2.826.0.1.3680043.8.498.1"


@pytest.fixture
async def stage(mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc) -> AsyncIterator[Stage]:
    async with open_stage(mongodb, empty_orthanc) as opened:
        yield opened


async def test_a_study_is_created_updated_stable_and_deleted(stage: Stage) -> None:
    told: list[tuple[StudyChangeKind, str, int | None]] = []
    events = StudyEvents(stage.database, stable_seconds=1.5)
    async with events.listen() as listener, events.listen("1.2.3") as elsewhere:
        ids = await stage.send([instance_bytes(1, 1, number) for number in (1, 2)])
        await stage.sync.reconciler.reconcile(ids[:1])
        changes = listener.events()
        told.append(_summary(await _next(changes)))
        await stage.sync.reconciler.reconcile(ids)
        told.append(_summary(await _next(changes)))
        told.append(_summary(await _next(changes)))
        await stage.modality.delete(f"/instances/{ids[0]}")
        await stage.modality.delete(f"/instances/{ids[1]}")
        await stage.sync.reconciler.reconcile(ids)
        told.append(_summary(await _next(changes)))
        assert elsewhere.waiting == 0
    assert told == [
        (StudyChangeKind.CREATED, UID, 1),
        (StudyChangeKind.UPDATED, UID, 2),
        (StudyChangeKind.STABLE, UID, 2),
        (StudyChangeKind.DELETED, UID, None),
    ]
    assert not events.is_watching


async def test_a_study_that_changed_shortly_before_is_told_when_it_rests(stage: Stage) -> None:
    ids = await stage.send([instance_bytes(1, 1, 1)])
    await stage.sync.reconciler.reconcile(ids)
    async with StudyEvents(stage.database, stable_seconds=1).listen(UID) as listener:
        event = await _next(listener.events())
    assert _summary(event) == (StudyChangeKind.STABLE, UID, 1)


async def test_studies_are_told_again_after_the_collection_was_dropped(stage: Stage) -> None:
    async with StudyEvents(stage.database, stable_seconds=60).listen() as listener:
        await stage.database["studies"].drop()
        changes = listener.events()
        ids = await stage.send([instance_bytes(1, 1, 1)])
        # What happens until the stream is open again is not told.
        async with asyncio.timeout(PATIENCE_SECONDS):
            while listener.waiting == 0:
                await stage.sync.reconciler.reconcile(ids)
                await asyncio.sleep(0.5)
                await stage.indexer.remove(ids)
        assert _summary(await _next(changes))[1] == UID


async def test_a_slow_listener_is_cut_off_and_told_why() -> None:
    listener = Listener(None)
    change = StudyChange(StudyChangeKind.UPDATED, "id", UID, {})
    for _ in range(LISTENER_MAX_EVENTS + 1):
        listener.add(change)
    with pytest.raises(LimitExceeded, match="Subscribe again"):
        async for _ in listener.events():
            pass


def _summary(change: StudyChange) -> tuple[StudyChangeKind, str, int | None]:
    document = change.document
    return (
        change.kind,
        change.study_instance_uid,
        document["numberOfInstances"] if document else None,
    )


async def _next(changes: AsyncIterator[StudyChange]) -> StudyChange:
    async with asyncio.timeout(PATIENCE_SECONDS):
        return await anext(changes)


async def test_a_listener_that_was_away_learns_what_happened(stage: Stage) -> None:
    events = StudyEvents(stage.database, stable_seconds=60)
    files = {number: instance_bytes(number, 1, 1) for number in (1, 2, 3)}
    ids = await stage.send(files.values())
    await stage.sync.reconciler.reconcile(ids)
    long_ago = datetime.now(UTC) - timedelta(days=1)
    before = {"createdAt": long_ago, "updatedAt": long_ago}
    await stage.database["studies"].update_many({}, {"$set": before})
    left_at = datetime.now(UTC)

    # One was deleted, one deleted and stored again, one is new, and one is as it was.
    for instance_id in ids[:2]:
        await stage.modality.delete(f"/instances/{instance_id}")
    await stage.sync.reconciler.reconcile(ids[:2])
    new = await stage.send([files[2], instance_bytes(4, 1, 1)])
    await stage.sync.reconciler.reconcile(new)

    missed = await events.missed(left_at)
    assert {(change.study_instance_uid[-1], change.kind.value) for change in missed} == {
        ("1", "DELETED"),
        ("2", "CREATED"),
        ("4", "CREATED"),
    }
    one = missed[-1]
    assert await events.missed(left_at, one.study_instance_uid) == [one]
    only = Scope(study_ids=frozenset({missed[0].study_id}))
    assert await events.missed(left_at, scope=only) == missed[:1]
    assert await events.missed(datetime.now(UTC) + timedelta(minutes=1)) == []


async def test_who_was_away_learns_that_a_study_lost_the_label_by_which_they_saw_it(
    stage: Stage,
) -> None:
    events = StudyEvents(stage.database, stable_seconds=60)
    labels = Labels(stage.database, None, max_seconds=10)
    ward = Scope(labels=frozenset({"ward"}))
    files = [instance_bytes(number, 1, 1) for number in (1, 2, 3, 4)]
    ids = await stage.send(files)
    await stage.sync.reconciler.reconcile(ids)
    found = await stage.database["studies"].find().sort("studyInstanceUID").to_list()
    _, lost, gone, back = ward_studies = [study["_id"] for study in found]
    for study_id in ward_studies:
        await labels.add(study_id, ["ward", "x"], ALL)
    long_ago = datetime.now(UTC) - timedelta(days=1)
    before = {"createdAt": long_ago, "updatedAt": long_ago}
    await stage.database["studies"].update_many({}, {"$set": before})
    left_at = datetime.now(UTC)
    for study_id in (lost, gone):
        await labels.remove(study_id, ["ward", "other"], ALL)
    await labels.remove(lost, ["x"], ALL)
    # One was deleted as well, and one was deleted and came again without its labels.
    for instance_id in ids[2:]:
        await stage.modality.delete(f"/instances/{instance_id}")
    await stage.sync.reconciler.reconcile(ids)
    await stage.sync.reconciler.reconcile(await stage.send(files[3:]))

    missed = {one.study_id: one for one in await events.missed(left_at, scope=ward)}
    assert {study_id: one.kind.value for study_id, one in missed.items()} == {
        lost: "DELETED",
        gone: "DELETED",
        back: "DELETED",
    }
    for one in missed.values():
        # What is checked again before it is sent.
        assert ward.covers(one.study_id, one.labels)
        assert one.document is None
    # Whoever never saw them learns nothing.
    never = Scope(labels=frozenset({"other"}))
    assert await events.missed(left_at, scope=never) == []
    everything = {one.study_id: one.kind.value for one in await events.missed(left_at)}
    assert everything == {lost: "UPDATED", gone: "DELETED", back: "CREATED"}
    # What was taken before the caller was away is not told again.
    later = datetime.now(UTC) + timedelta(minutes=1)
    await stage.database["studies"].update_one({"_id": lost}, {"$set": {"updatedAt": later}})
    assert await events.missed(later, scope=ward) == []


async def test_what_happened_too_long_ago_or_too_often_is_refused(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    events = StudyEvents(stage.database, stable_seconds=60)
    with pytest.raises(InvalidInput, match="kept for 7 days"):
        await events.missed(datetime.now(UTC) - timedelta(days=8))
    monkeypatch.setattr("services.sync.events._MISSED_MAX", 1)
    ids = await stage.send(instance_bytes(number, 1, 1) for number in (1, 2))
    await stage.sync.reconciler.reconcile(ids)
    with pytest.raises(LimitExceeded, match="Query the studies"):
        await events.missed(datetime.now(UTC))
