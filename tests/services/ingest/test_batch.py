import asyncio
from collections.abc import AsyncIterator

import pytest

from services.ingest.batch import map_ordered


async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


async def test_results_come_in_the_order_of_the_items() -> None:
    async def work(number: int) -> int:
        await asyncio.sleep(0.01 if number == 0 else 0)
        return number * 2

    discarded: list[int] = []

    async def discard(number: int) -> None:
        discarded.append(number)

    ordered = map_ordered(numbers(5), work, concurrency=3, discard=discard)
    assert [result async for result in ordered] == [0, 2, 4, 6, 8]
    assert discarded == []


@pytest.mark.parametrize("begun", [True, False])
async def test_leaving_early_discards_what_was_taken(begun: bool) -> None:
    forever = asyncio.Event()

    async def work(number: int) -> int:
        if number > 0:
            await forever.wait()
        return number

    discarded: list[int] = []

    async def discard(number: int) -> None:
        discarded.append(number)

    ordered = map_ordered(numbers(5), work, concurrency=3, discard=discard)
    assert await anext(ordered) == 0
    waiting = asyncio.create_task(anext(ordered))
    await asyncio.sleep(0.01 if begun else 0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await ordered.aclose()
    assert discarded == [1, 2, 3]
