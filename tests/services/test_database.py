"""The clock of this machine beside that of MongoDB."""

import asyncio
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest
from pymongo import lock
from pymongo.errors import NotPrimaryError

from services.database import (
    CollectionCount,
    describe_clock_difference,
    translated_database_faults,
)
from services.errors import DatabaseUnavailable
from tests.patience import PATIENCE_SECONDS

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("seconds", [-10, -1, 0, 1, 10])
def test_clocks_that_are_near_enough_are_not_mentioned(seconds: int) -> None:
    assert describe_clock_difference(NOW + timedelta(seconds=seconds), NOW) is None


@pytest.mark.parametrize(("hours", "words"), [(1, "3600 s behind"), (-1, "3600 s ahead of")])
def test_clocks_an_hour_apart_are_told_with_what_to_do(hours: int, words: str) -> None:
    # PyMongo gives times without a zone unless it is told otherwise.
    for time in (NOW + timedelta(hours=hours), (NOW + timedelta(hours=hours)).replace(tzinfo=None)):
        told = describe_clock_difference(time, NOW)
        assert told is not None
        assert words in told
        assert "NTP" in told


def test_the_lost_lock_of_a_fail_over_counts_as_a_fault_of_mongodb_and_other_errors_do_not() -> (
    None
):
    with pytest.raises(DatabaseUnavailable), translated_database_faults():
        raise RuntimeError("cannot wait on un-acquired lock")
    with pytest.raises(RuntimeError, match="ours"), translated_database_faults():
        raise RuntimeError("ours")


class Counted:
    """A collection whose own count may be wrong, on a primary that may be replaced."""

    name = "studies"

    def __init__(self) -> None:
        self.election: object = "first"
        self.documents = 10
        self.error = 0
        self.is_stepped_down = False
        self.written_while_counting = 0
        self.scans = 0
        client = SimpleNamespace(
            topology_description=SimpleNamespace(server_descriptions=self._servers)
        )
        self.database = SimpleNamespace(client=client)

    def _servers(self) -> dict[str, Any]:
        primary = SimpleNamespace(is_writable=True, election_id=self.election)
        return {"a": primary} if self.election else {}

    def with_options(self, **_: Any) -> "Counted":
        return self

    async def estimated_document_count(self, **_: Any) -> int:
        if self.is_stepped_down:
            raise NotPrimaryError("not primary")
        return self.documents + self.error

    async def count_documents(self, _filter: object, **_: Any) -> int:
        self.scans += 1
        counted = self.documents
        self.documents += self.written_while_counting
        return counted


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_a_whole_collection_is_counted_once_after_each_election() -> None:
    collection = Counted()
    counts = CollectionCount(cast("Any", collection))
    counted = counts.read
    assert [await counted(), await counted()] == [10, 10]
    collection.documents = 12
    assert (await counted(), collection.scans) == (12, 1)
    collection.election, collection.error = "after a crash", -5
    assert [await counted(), await counted()] == [12, 12]
    collection.documents = 13
    assert (await counted(), collection.scans) == (13, 2)
    collection.election = None
    assert [await counted(), await counted()] == [13, 13]
    assert collection.scans == 4


async def test_a_primary_that_has_just_stepped_down_fails_no_count() -> None:
    collection = Counted()
    counted = CollectionCount(cast("Any", collection)).read
    assert await counted() == 10
    collection.is_stepped_down, collection.documents = True, 12
    assert (await counted(), collection.scans) == (12, 2)


async def test_writes_during_the_count_are_no_error_and_it_is_repeated_later() -> None:
    collection, clock = Counted(), Clock()
    counts = CollectionCount(cast("Any", collection), clock=clock)
    counted = counts.read
    collection.written_while_counting = 3
    assert (await counted(), await counted()) == (10, 13)
    assert collection.scans == 1
    collection.written_while_counting = 0
    clock.now = 61.0
    assert (await counted(), await counted(), collection.scans) == (13, 13, 2)


async def test_a_wait_for_a_server_that_is_cancelled_twice_leaves_no_lock_behind() -> None:
    condition = lock._async_create_condition(lock._async_create_lock())

    async def wait() -> None:
        async with condition:
            await lock._async_cond_wait(condition, PATIENCE_SECONDS)

    async def go_on() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    waiting = asyncio.create_task(wait())
    await go_on()
    await condition.acquire()
    waiting.cancel()
    await go_on()
    waiting.cancel()
    condition.release()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await go_on()
    assert not condition.locked()
