import asyncio

import pytest

from services.errors import RenderQueueFull
from services.frames.queue import RenderQueue


async def test_more_than_the_queue_holds_are_refused() -> None:
    queue = RenderQueue(slots=1, size=1)
    async with queue.slot():

        async def wait() -> None:
            async with queue.slot():
                pass

        waiting = asyncio.create_task(wait())
        await asyncio.sleep(0)
        assert not queue.is_idle
        with pytest.raises(RenderQueueFull):
            async with queue.slot():
                pass
    await waiting
    assert queue.is_idle


async def test_alone_means_that_nothing_else_runs() -> None:
    queue, running, seen = RenderQueue(slots=3, size=20), 0, []

    async def render(*, alone: bool) -> None:
        nonlocal running
        async with queue.slot(alone=alone):
            running += 1
            await asyncio.sleep(0)
            seen.append((alone, running))
            running -= 1

    await asyncio.gather(*(render(alone=index % 3 == 0) for index in range(12)))
    assert {running for alone, running in seen if alone} == {1}
    assert max(running for alone, running in seen if not alone) > 1
    assert queue.is_idle


async def test_a_cancelled_waiter_gives_its_slots_back() -> None:
    queue = RenderQueue(slots=2, size=5)

    async def wait_alone() -> None:
        async with queue.slot(alone=True):
            pass

    async with queue.slot():
        waiting = asyncio.create_task(wait_alone())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with queue.slot(alone=True):
        assert not queue.is_idle
