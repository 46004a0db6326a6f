"""An instance that breaks Orthanc whenever its header is read does not hold the others up."""

import asyncio
from collections.abc import AsyncIterator, Iterable

import pytest

from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.errors import OrthancOutcomeUnknown
from services.sync.cursor import FeedCursor, FeedPosition
from services.sync.follower import Follower
from services.sync.reconciling import MAX_ATTEMPTS, Reconciliation
from tests.real.sync_stage import Stage, eventually, instance_bytes, open_stage


@pytest.fixture
async def stage(mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc) -> AsyncIterator[Stage]:
    async with open_stage(mongodb, empty_orthanc) as opened:
        yield opened


async def test_it_is_found_by_halving_given_up_and_the_cursor_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    follower = _follower(stage)
    await FeedCursor(stage.database).move(await _beginning(stage), 1)
    ids = await stage.send([instance_bytes(1, 1, number) for number in range(1, 8)])
    poison = ids[3]
    asked = _break_at(stage, poison, monkeypatch)
    following = asyncio.create_task(follower.follow(1))

    async def has_passed() -> bool:
        newest = (await stage.orthanc.newest_change()).last
        return follower.state.position == newest

    await eventually(has_passed)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert await stage.instance_ids() == {*ids} - {poison}
    fault = await stage.database["indexFaults"].find_one({})
    assert fault is not None
    assert (fault["_id"], fault["attempts"]) == (poison, MAX_ATTEMPTS)
    # Whole pages first, then halves down to the one.
    assert [len(batch) for batch in asked[:4]] == [7, 7, 7, 7]
    assert [poison] in asked


async def test_what_was_given_up_is_tried_again_when_somebody_asks_to_synchronize(
    stage: Stage,
) -> None:
    ids = await stage.send([instance_bytes(1, 1, number) for number in (1, 2)])
    await stage.sync.reconciler.give_up(await stage.orthanc.stored_files(ids[:1]), "it broke")
    await stage.sync.reconciler.reconcile(ids)
    assert await stage.instance_ids() == {ids[1]}
    await stage.sync.synchronize()
    assert await stage.instance_ids() == {*ids}
    assert await stage.database["indexFaults"].count_documents({}) == 0


def _follower(stage: Stage) -> Follower:
    return Follower(
        stage.orthanc,
        FeedCursor(stage.database),
        stage.sync.reconciler,
        stage.sync.comparison.roll_ups,
        poll_seconds=0.02,
        on_gap=lambda: None,
    )


async def _beginning(stage: Stage) -> FeedPosition:
    return FeedPosition.after(await stage.orthanc.newest_change())


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
