"""What this process is about to index by itself is known to who follows the change feed."""

import asyncio

import pytest

from services.index.pending import PendingInstances
from tests.patience import PATIENCE_SECONDS


async def test_an_instance_is_under_way_from_its_announcement_until_it_is_stored() -> None:
    pending = PendingInstances()
    with pending.track() as add:
        assert pending.intersection(["a", "b"]) == []
        add("a")
        assert pending.intersection(["b", "a"]) == ["a"]
    assert pending.intersection(["a"]) == []


async def test_waiting_ends_with_the_last_of_the_instances_that_are_asked_for() -> None:
    pending = PendingInstances()
    with pending.track() as other:
        other("other")
        with pending.track() as first:
            first("first")
            with pending.track() as second:
                second("second")
                waiting = asyncio.create_task(pending.wait_for(["first", "second"], seconds=10))
                await asyncio.sleep(0)
            for _ in range(3):
                await asyncio.sleep(0)
            assert not waiting.done()
        await asyncio.wait_for(waiting, PATIENCE_SECONDS)


async def test_waiting_ends_when_its_time_is_over() -> None:
    pending = PendingInstances()
    with pending.track() as add:
        add("a")
        await pending.wait_for(["a"], seconds=0.01)
        assert pending.intersection(["a"]) == ["a"]


async def test_an_announcement_that_comes_after_the_end_says_nothing() -> None:
    pending = PendingInstances()
    with pytest.raises(RuntimeError), pending.track() as add:
        raise RuntimeError
    add("a")
    assert pending.intersection(["a"]) == []
