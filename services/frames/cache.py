"""Rendered frames in memory, bounded in bytes; simultaneous requests share one rendering."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from cachetools import TTLCache
from zlib_ng import zlib_ng

from services.frames.records import RenderableInstance
from services.frames.variant import FrameVariant


@dataclass(frozen=True, slots=True)
class RenderedFrame:
    """A picture: the bytes of a PNG or JPEG file and their strong entity tag with its quotes."""

    content: bytes
    etag: str

    @classmethod
    def of(cls, content: bytes) -> "RenderedFrame":
        """Tag a picture by its content.

        A tag is compared only with tags of the same frame, so a collision is of no use to an
        attacker: two checksums and the length suffice, in a tenth of the time of a digest.
        """
        checksums = f"{zlib_ng.crc32(content):08x}{zlib_ng.adler32(content):08x}"
        return cls(content, f'"{checksums}{len(content):08x}"')


InstanceFinder = Callable[[str], Awaitable[RenderableInstance | None]]

KEPT_SECONDS = 2.0
"""A player requests all frames of one instance. A changed `useOrthancPreview`, or a removal by
another process, is noticed after this time."""

_INSTANCES = 256


class InstanceCache:
    """Looks up instances, and caches them for 2 seconds.

    Args:
        find: Asks the index.
        clock: Seconds that never go back.
    """

    def __init__(self, find: InstanceFinder, clock: Callable[[], float] = time.monotonic) -> None:
        self._find = find
        self._instances: TTLCache[str, RenderableInstance] = TTLCache(
            _INSTANCES, KEPT_SECONDS, timer=clock
        )

    async def find(self, instance_id: str, revision: str) -> RenderableInstance | None:
        """Return an instance if it is indexed with this revision.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        instance = self._instances.get(instance_id)
        if instance is None or instance.revision != revision:
            instance = await self._find(instance_id)
            if instance is None or instance.revision != revision:
                return None
            self.keep([instance])
        return instance

    def keep(self, instances: Iterable[RenderableInstance]) -> None:
        """Cache instances as they are indexed now."""
        for instance in instances:
            self._instances[instance.id] = instance

    def discard(self, instance_id: str) -> None:
        """Discard an instance that was removed or replaced."""
        self._instances.pop(instance_id, None)


_ENTRY_BYTES = 1024
"""Memory of an entry besides its picture, in bytes: the key with its texts, the tag, the places in
the tables. CPython 3.11 needs 840 for the only frame of an instance, 615 for one of many."""


class FrameKey(NamedTuple):
    """Identifies a picture; `frame_index` is 0-based."""

    instance_id: str
    revision: str
    frame_index: int
    variant: FrameVariant


class FrameCache:
    """A cache that drops the least recently used pictures first; for one event loop.

    Args:
        max_bytes: Memory for pictures, in bytes; 0 turns the cache off.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._frames: OrderedDict[FrameKey, RenderedFrame] = OrderedDict()
        self._kept: dict[str, set[FrameKey]] = {}
        self._flights: dict[FrameKey, asyncio.Task[RenderedFrame]] = {}

    @property
    def is_on(self) -> bool:
        """Whether pictures are kept."""
        return self._max_bytes > 0

    @property
    def size_bytes(self) -> int:
        """Memory in use, in bytes."""
        return self._bytes

    def find(self, key: FrameKey) -> RenderedFrame | None:
        """Return a cached picture; None if there is none."""
        frame = self._frames.get(key)
        if frame is not None:
            self._frames.move_to_end(key)
        return frame

    def knows(self, key: FrameKey) -> bool:
        """Whether a picture is cached or being rendered; this does not count as use."""
        return key in self._frames or key in self._flights

    async def get(
        self, key: FrameKey, render: Callable[[], Awaitable[RenderedFrame]]
    ) -> RenderedFrame:
        """Return a picture, which is rendered once for all waiting callers.

        A cancelled caller does not affect the others. Errors are raised to all of them and are not
        cached.
        """
        frame = self.find(key)
        if frame is not None:
            return frame
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.create_task(self._fly(key, render))
            self._flights[key] = flight
            flight.add_done_callback(_mark_retrieved)
        return await asyncio.shield(flight)

    def discard(self, instance_id: str) -> None:
        """Discard the pictures of an instance, also those that are being rendered."""
        for key in list(self._kept.get(instance_id, ())):
            self._drop(key)
        for key in [key for key in self._flights if key.instance_id == instance_id]:
            del self._flights[key]

    async def close(self) -> None:
        """Cancel the renderings in progress."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fly(
        self, key: FrameKey, render: Callable[[], Awaitable[RenderedFrame]]
    ) -> RenderedFrame:
        try:
            frame = await render()
            if self._flights.get(key) is asyncio.current_task():
                self._keep(key, frame)
            return frame
        finally:
            if self._flights.get(key) is asyncio.current_task():
                del self._flights[key]

    def _keep(self, key: FrameKey, frame: RenderedFrame) -> None:
        if _cost(frame) > self._max_bytes:
            return
        self._frames[key] = frame
        self._kept.setdefault(key.instance_id, set()).add(key)
        self._bytes += _cost(frame)
        while self._bytes > self._max_bytes:
            self._drop(next(iter(self._frames)))

    def _drop(self, key: FrameKey) -> None:
        self._bytes -= _cost(self._frames.pop(key))
        of_instance = self._kept[key.instance_id]
        of_instance.discard(key)
        if not of_instance:
            del self._kept[key.instance_id]


def _cost(frame: RenderedFrame) -> int:
    return len(frame.content) + _ENTRY_BYTES


def _mark_retrieved(flight: asyncio.Task[RenderedFrame]) -> None:
    # Otherwise a failure without waiting callers is logged as never retrieved.
    if not flight.cancelled():
        flight.exception()
