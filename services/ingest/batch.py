"""Concurrent work on many items, with results in their order."""

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

    Items are consumed only as fast as results, so that memory stays constant. If the caller stops
    early, the work in progress is cancelled and awaited.

    Args:
        items: What to work on.
        work: Must not raise for the fault of a single item.
        concurrency: Most items in progress at once.
        discard: Awaited for each consumed item without a result if the caller stops early.
    """
    in_progress: deque[tuple[_Item, asyncio.Task[_Result]]] = deque()
    try:
        async for item in items:
            in_progress.append((item, asyncio.create_task(_worked(work, item))))
            while in_progress and (len(in_progress) >= concurrency or in_progress[0][1].done()):
                yield await _oldest(in_progress)
        while in_progress:
            yield await _oldest(in_progress)
    finally:
        # No task may go on: the caller closes the files that it reads.
        await cancel_and_wait(*(task for _, task in in_progress))
        if discard is not None:
            for item, _ in in_progress:
                await discard(item)


async def _worked(work: Callable[[_Item], Awaitable[_Result]], item: _Item) -> _Result:
    return await work(item)


async def _oldest(in_progress: deque[tuple[_Item, asyncio.Task[_Result]]]) -> _Result:
    """Wait for the oldest task, which counts as in progress until it is done."""
    result = await in_progress[0][1]
    in_progress.popleft()
    return result
