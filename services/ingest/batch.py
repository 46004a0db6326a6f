"""Many files at once, with results in the order sent."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TypeVar

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


async def in_order(
    items: AsyncIterator[_Item], work: Callable[[_Item], Awaitable[_Result]], *, concurrency: int
) -> AsyncGenerator[_Result, None]:
    """Work on items concurrently and yield the results in the order of the items.

    Items are taken only as results are, so that memory stays flat. Leaving early cancels what is
    under way and waits for it.

    Args:
        items: What to work on.
        work: Must not raise for what one item alone is to blame for.
        concurrency: Most items under way at once.
    """
    under_way: deque[asyncio.Task[_Result]] = deque()
    try:
        async for item in items:
            under_way.append(asyncio.create_task(_awaited(work(item))))
            if len(under_way) >= concurrency:
                yield await under_way.popleft()
        while under_way:
            yield await under_way.popleft()
    finally:
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)


async def _awaited(awaitable: Awaitable[_Result]) -> _Result:
    return await awaitable
