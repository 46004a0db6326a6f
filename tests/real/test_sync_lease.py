"""One process follows, another takes over, and a former one can write no more."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from services.database import open_database
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.sync.follower import FeedCursor, FeedPosition
from services.sync.lease import Lease, LeaseLost
from tests.real.sync_stage import Stage, eventually, instance_bytes, open_stage, running


@pytest.fixture
async def database(
    mongodb: EmbeddedMongod, database_name: str
) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    async with open_database(mongodb.url, database_name) as opened:
        yield opened


async def test_one_of_many_gets_the_lease_and_renewing_keeps_the_token(
    database: AsyncDatabase[dict[str, Any]],
) -> None:
    leases = [Lease(database, "job") for _ in range(8)]
    tokens = await asyncio.gather(*(lease.acquire() for lease in leases))
    assert [token for token in tokens if token is not None] == [1]
    holder = next(lease for lease in leases if lease.is_held)
    assert await holder.acquire() == 1


async def test_a_lease_that_ran_out_goes_to_another_with_a_greater_token(
    database: AsyncDatabase[dict[str, Any]],
) -> None:
    dead = Lease(database, "job", lease_seconds=0.05)
    assert await dead.acquire() == 1
    await asyncio.sleep(0.1)
    heir = Lease(database, "job")
    assert await heir.acquire() == 2
    assert await dead.acquire() is None


async def test_a_clean_stop_lets_another_begin_at_once(
    database: AsyncDatabase[dict[str, Any]],
) -> None:
    async def work(_token: int) -> None:
        await asyncio.Event().wait()

    first = Lease(database, "job")
    holding = asyncio.create_task(first.hold(work))
    await eventually(_is_true(lambda: first.is_held))
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    assert await Lease(database, "job").acquire() == 2


async def test_work_stops_when_the_lease_is_taken(
    database: AsyncDatabase[dict[str, Any]],
) -> None:
    events: list[str] = []

    async def work(token: int) -> None:
        events.append(f"begins {token}")
        try:
            await asyncio.Event().wait()
        finally:
            events.append(f"ends {token}")

    lease = Lease(database, "job", renew_seconds=0.05)
    holding = asyncio.create_task(lease.hold(work))
    await eventually(_is_true(lambda: bool(events)))
    await database["leases"].update_one({}, {"$set": {"holder": "another"}, "$inc": {"token": 1}})
    await eventually(_is_true(lambda: len(events) == 2))
    holding.cancel()
    await asyncio.gather(holding, return_exceptions=True)
    assert events == ["begins 1", "ends 1"]


async def test_a_former_holder_can_not_move_the_cursor(
    database: AsyncDatabase[dict[str, Any]],
) -> None:
    cursor = FeedCursor(database)
    await cursor.move(FeedPosition(5, "20240101T000000", "a"), token=1)
    assert await cursor.claim(2) == FeedPosition(5, "20240101T000000", "a")
    with pytest.raises(LeaseLost):
        await cursor.move(FeedPosition(9), token=1)
    with pytest.raises(LeaseLost):
        await cursor.claim(1)
    assert await cursor.read() == FeedPosition(5, "20240101T000000", "a")


async def test_of_two_processes_one_follows_and_nothing_is_missed(
    mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc
) -> None:
    async with (
        open_stage(mongodb, empty_orthanc) as one,
        open_stage(mongodb, empty_orthanc, database_name=one.database_name) as other,
        running(one.sync),
    ):
        await eventually(_follows(one))
        async with running(other.sync):
            await one.send([instance_bytes(1, 1, number) for number in range(1, 9)])
            await eventually(one.is_in_step)
            assert not (await other.sync.status()).is_following
    async with (
        open_stage(mongodb, empty_orthanc, database_name=one.database_name) as heir,
        running(heir.sync),
    ):
        await eventually(_follows(heir))
        await heir.database.client.drop_database(one.database_name)


def _follows(stage: Stage) -> Callable[[], Awaitable[bool]]:
    async def follows() -> bool:
        status = await stage.sync.status()
        return status.is_following and status.behind_changes == 0

    return follows


def _is_true(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def is_true() -> bool:
        return condition()

    return is_true
