"""Files that come at the same time are indexed in one batch."""

import asyncio
from collections.abc import Sequence

from services.ingest.storing import InFlightCounter
from services.tasks import Coalescer


async def test_a_batch_takes_what_comes_while_it_is_gathered() -> None:
    seen: list[list[int]] = []
    more_came = asyncio.Event()

    async def work(batch: Sequence[int]) -> Sequence[int]:
        seen.append(list(batch))
        return [10 * item for item in batch]

    async def gather() -> None:
        await more_came.wait()

    coalescer = Coalescer(work, max_weight=10, gather=gather)
    first = asyncio.create_task(coalescer.submit(1))
    for _ in range(3):
        await asyncio.sleep(0)
    second = asyncio.create_task(coalescer.submit(2))
    await asyncio.sleep(0)
    more_came.set()
    assert [await first, await second] == [10, 20]
    assert seen == [[1, 2]]


async def test_it_is_quiet_when_the_last_of_several_is_done() -> None:
    traffic = InFlightCounter()
    with traffic.track():
        with traffic.track():
            pass
        waiting = asyncio.create_task(traffic.wait_idle())
        await asyncio.sleep(0)
        assert not waiting.done()
    await waiting
