"""The queue of renders: bounded, and able to let one render alone."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import (
    AbstractContextManager,
    AsyncExitStack,
    asynccontextmanager,
    contextmanager,
    nullcontext,
)
from weakref import WeakValueDictionary

from services.errors import RenderQueueFull
from services.frames.records import RenderableInstance

_HELD_SECONDS = 60.0
"""How long after a frame of it Orthanc is taken to hold a file; its cache goes by bytes alone."""

_FILES = 256
"""Files of which that is known."""

_Key = tuple[str, str]
"""Identifier and revision of an instance."""


class ParseOnceGate:
    """Makes frames of a file wait while its first one is on its way; for one event loop.

    Args:
        waiting: Counts one who waits, and refuses where too many do.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._waiting = waiting
        self._clock = clock
        self._held: OrderedDict[_Key, float] = OrderedDict()
        self._locks: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def before_others(self, instance: RenderableInstance) -> AsyncIterator[None]:
        """Wait for the turn of a frame; when the first one fails, the next is the first.

        Raises:
            RenderQueueFull: As `waiting` does.
        """
        if instance.number_of_frames == 1:
            yield
            return
        key = (instance.id, instance.revision)
        async with AsyncExitStack() as stack:
            if not self._is_held(key):
                first = self._locks.setdefault(key, asyncio.Lock())
                with self._waiting():
                    await stack.enter_async_context(first)
            if self._is_held(key):
                await stack.aclose()
            yield
            self._note(key)

    def _is_held(self, key: _Key) -> bool:
        return self._clock() < self._held.get(key, 0.0)

    def _note(self, key: _Key) -> None:
        self._held[key] = self._clock() + _HELD_SECONDS
        self._held.move_to_end(key)
        while len(self._held) > _FILES:
            self._held.popitem(last=False)


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
