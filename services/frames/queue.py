"""The queue of renders: bounded, and fair to each instance."""

import asyncio
import time
from collections import OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from weakref import WeakValueDictionary

from cachetools import TTLCache

from services.errors import RenderQueueFull
from services.frames.records import RenderableInstance
from services.observability.metrics import FRAME_SECONDS, timed

_HELD_SECONDS = 60.0
"""How long Orthanc is assumed to hold a file after a frame of it was read; its cache is bounded in
bytes alone."""

_FILES = 256
"""Files of which that is known."""

_Key = tuple[str, str]
"""Identifier and revision of an instance."""


class ParseOnceGate:
    """Lets the first frame of a file go before the others; for one event loop.

    Orthanc parses a file once for every frame that is asked for at once, and keeps it afterwards.

    Args:
        size: Frames that may wait.
        clock: Seconds that never go back.
    """

    def __init__(self, size: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._size = size
        self._count = 0
        self._held: TTLCache[_Key, bool] = TTLCache(_FILES, _HELD_SECONDS, timer=clock)
        self._locks: WeakValueDictionary[_Key, asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def first_before_others(self, instance: RenderableInstance) -> AsyncIterator[None]:
        """Wait until a frame of the file was read; when the first one fails, the next is first.

        Raises:
            RenderQueueFull: Too many wait already.
        """
        if instance.number_of_frames == 1:
            yield
            return
        key = (instance.id, instance.revision)
        async with AsyncExitStack() as stack:
            if key not in self._held:
                if self._count >= self._size:
                    raise RenderQueueFull
                self._count += 1
                try:
                    lock = self._locks.setdefault(key, asyncio.Lock())
                    await stack.enter_async_context(lock)
                finally:
                    self._count -= 1
            if key in self._held:
                await stack.aclose()
            yield
            self._held[key] = True


class RenderQueue:
    """Gives slots to instances in turn, and within an instance first come, first served.

    When the queue is full, the instance that has most frames waiting loses its newest one. So
    a client that asks for thousands of renderings of one instance delays mostly those.

    Args:
        slots: Renders at once.
        size: Renders that may wait.
    """

    def __init__(self, slots: int, size: int) -> None:
        self._free = slots
        self._size = size
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._count = 0

    @property
    def is_idle(self) -> bool:
        """Whether no render waits and a slot is free: room to look ahead."""
        return self._count == 0 and self._free > 0

    @property
    def waiting(self) -> int:
        """How many renders wait for a slot."""
        return self._count

    @asynccontextmanager
    async def slot(self, instance_id: str) -> AsyncIterator[None]:
        """Wait for a slot.

        Args:
            instance_id: The instance to which the frame belongs.

        Raises:
            RenderQueueFull: Too many wait already.
        """
        if self._free > 0:
            self._free -= 1
        else:
            with timed(FRAME_SECONDS, "queue"):
                await self._wait(instance_id)
        try:
            yield
        finally:
            self._release()

    async def _wait(self, instance_id: str) -> None:
        if self._count >= self._size:
            self._make_room(instance_id)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(instance_id, deque()).append(turn)
        self._count += 1
        try:
            await turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.exception() is None:
                # The slot came at the moment of the cancellation: it goes on to the next.
                self._release()
            else:
                self._remove(instance_id, turn)
            raise

    def _make_room(self, instance_id: str) -> None:
        longest = max(self._waiting, key=lambda one: len(self._waiting[one]), default=None)
        own = len(self._waiting.get(instance_id, ()))
        if longest is None or len(self._waiting[longest]) <= own + 1:
            raise RenderQueueFull
        turn = self._waiting[longest][-1]
        self._remove(longest, turn)
        turn.set_exception(RenderQueueFull())

    def _remove(self, instance_id: str, turn: "asyncio.Future[None]") -> None:
        turns = self._waiting.get(instance_id)
        if turns is None or turn not in turns:
            return
        turns.remove(turn)
        self._count -= 1
        if not turns:
            del self._waiting[instance_id]

    def _release(self) -> None:
        while self._waiting:
            instance_id, turns = self._waiting.popitem(last=False)
            turn = turns.popleft()
            self._count -= 1
            if turns:
                # The others' turn comes before this one's next.
                self._waiting[instance_id] = turns
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class RenderRate:
    """Bounds how often the renderings of one instance are made; for one event loop.

    Frame and variant of a URL are not signed, so its owner may ask for any window and size.

    Args:
        per_second: Renderings of one instance that may follow each other.
        burst: Renderings that may come at once.
        clock: Seconds that never go back.
    """

    def __init__(
        self, *, per_second: float, burst: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._per_second = per_second
        self._burst = burst
        self._clock = clock
        # After this time without a rendering the whole burst is available again.
        self._used: TTLCache[str, tuple[float, float]] = TTLCache(
            _INSTANCES, burst / per_second, timer=clock
        )

    def take(self, instance_id: str) -> None:
        """Count a rendering.

        Raises:
            RenderQueueFull: There were too many of this instance.
        """
        now = self._clock()
        used, at = self._used.get(instance_id, (0.0, now))
        used = max(0.0, used - (now - at) * self._per_second)
        if used + 1 > self._burst:
            raise RenderQueueFull("Too many renderings of this instance. Try again in a second.")
        self._used[instance_id] = used + 1, now


_INSTANCES = 4096
"""Instances whose renderings are counted; one that is forgotten has its burst again."""
