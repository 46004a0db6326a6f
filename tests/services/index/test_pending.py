"""What this process is about to index by itself is known to who follows the change feed."""

import asyncio

import pytest

from services.index.pending import PendingInstances
from tests.patience import PATIENCE_SECONDS


async def test_an_instance_is_under_way_from_its_announcement_until_it_is_stored() -> None:
    landing = PendingInstances()
    with landing.one_more() as announce:
        assert landing.among(["a", "b"]) == []
        announce("a")
        assert landing.among(["b", "a"]) == ["a"]
    assert landing.among(["a"]) == []


async def test_waiting_ends_with_the_last_of_the_instances_that_are_asked_for() -> None:
    landing = PendingInstances()
    with landing.one_more() as other:
        other("other")
        with landing.one_more() as first:
            first("first")
            with landing.one_more() as second:
                second("second")
                waiting = asyncio.create_task(landing.wait_for(["first", "second"], seconds=10))
                await asyncio.sleep(0)
            for _ in range(3):
                await asyncio.sleep(0)
            assert not waiting.done()
        await asyncio.wait_for(waiting, PATIENCE_SECONDS)


async def test_waiting_ends_when_its_time_is_over() -> None:
    landing = PendingInstances()
    with landing.one_more() as announce:
        announce("a")
        await landing.wait_for(["a"], seconds=0.01)
        assert landing.among(["a"]) == ["a"]


async def test_an_announcement_that_comes_after_the_end_says_nothing() -> None:
    landing = PendingInstances()
    with pytest.raises(RuntimeError), landing.one_more() as announce:
        raise RuntimeError
    announce("a")
    assert landing.among(["a"]) == []
