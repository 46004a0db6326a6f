"""The queue of renders: bounded, and able to let one render alone."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

from services.errors import RenderQueueFull


class RenderQueue:
    """First come, first served.

    Args:
        slots: Renders at once.
        size: Renders that may wait.
    """

    def __init__(self, slots: int, size: int) -> None:
        self._slots = slots
        self._size = size
        self._free = asyncio.Semaphore(slots)
        self._entrance = asyncio.Lock()
        self._waiting = 0

    @property
    def is_idle(self) -> bool:
        """Whether nobody waits and a slot is free: room for work that nobody asked for yet."""
        return self._waiting == 0 and not self._free.locked()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count one who waits for as long as the context is open.

        Raises:
            RenderQueueFull: Too many wait already.
        """
        if self._waiting >= self._size:
            raise RenderQueueFull
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    @asynccontextmanager
    async def slot(self, *, alone: bool = False) -> AsyncIterator[None]:
        """Wait for a slot, or for all of them.

        Raises:
            RenderQueueFull: Too many wait already.
        """
        needed = self._slots if alone else 1
        taken = 0
        try:
            with self.waiting():
                async with self._entrance:
                    while taken < needed:
                        await self._free.acquire()
                        taken += 1
            yield
        finally:
            for _ in range(taken):
                self._free.release()
