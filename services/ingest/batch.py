"""Many files at once, with results in the order sent."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

from services.tasks import cancel_and_wait

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


async def map_ordered(
    items: AsyncIterator[_Item],
    work: Callable[[_Item], Awaitable[_Result]],
    *,
    concurrency: int,
    discard: Callable[[_Item], Awaitable[object]] | None = None,
) -> AsyncGenerator[_Result, None]:
    """Work on items concurrently and yield the results in the order of the items.

    Items are taken only as results are, so that memory stays flat. Leaving early cancels what is
    under way and waits for it.

    Args:
        items: What to work on.
        work: Must not raise for what one item alone is to blame for.
        concurrency: Most items under way at once.
        discard: Awaited with what was taken when leaving early: work on it may not have begun.
    """
    under_way: deque[tuple[_Item, asyncio.Task[_Result]]] = deque()
    try:
        async for item in items:
            under_way.append((item, asyncio.create_task(_worked(work, item))))
            while under_way and (len(under_way) >= concurrency or under_way[0][1].done()):
                yield await _oldest(under_way)
        while under_way:
            yield await _oldest(under_way)
    finally:
        # Never leaves one running: its caller closes the files that it reads.
        await cancel_and_wait(*(task for _, task in under_way))
        if discard is not None:
            for item, _ in under_way:
                await discard(item)


async def _worked(work: Callable[[_Item], Awaitable[_Result]], item: _Item) -> _Result:
    return await work(item)


async def _oldest(under_way: deque[tuple[_Item, asyncio.Task[_Result]]]) -> _Result:
    """Wait for the first; it counts as under way until it is done."""
    result = await under_way[0][1]
    under_way.popleft()
    return result
