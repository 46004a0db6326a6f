"""The first frame of a file goes before the others.

Orthanc keeps files parsed, but reads and parses one for each request that comes until it has it:
8 frames at once of a file of 63 MB that it did not hold waited 1.1 s for that, one frame 0.2 s.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from weakref import WeakValueDictionary

from services.frames.instances import RenderableInstance

_HELD_SECONDS = 60.0
"""How long after a frame of it Orthanc is taken to hold a file; its cache goes by bytes alone."""

_FILES = 256
"""Files of which that is known."""

_Key = tuple[str, str]
"""Identifier and revision of an instance."""


class FirstFrame:
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
