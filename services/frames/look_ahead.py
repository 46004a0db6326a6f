"""The next frames of a cine, rendered before they are asked for, when nothing else is to do."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable

from services.errors import Error
from services.frames.cache import FrameCache, FrameKey
from services.frames.instances import RenderableInstance
from services.frames.queue import RenderQueue

FRAMES_AHEAD = 8
"""A third of a second at 25 frames/s: longer than any single cold frame takes."""

_INSTANCES = 64
_WAITING = 32
"""Keys that wait; older ones give way: the player has moved on."""


class LookAhead:
    """Renders what a player will likely ask for next; failures are left to the request itself."""

    def __init__(
        self,
        cache: FrameCache,
        queue: RenderQueue,
        render: Callable[[RenderableInstance, FrameKey], Awaitable[object]],
    ) -> None:
        self._cache = cache
        self._queue = queue
        self._render = render
        self._instances: OrderedDict[tuple[str, str], RenderableInstance] = OrderedDict()
        self._wanted: OrderedDict[FrameKey, RenderableInstance] = OrderedDict()
        self._wake = asyncio.Event()

    def remember(self, instance: RenderableInstance) -> None:
        """Keep a multi-frame instance whose frames are being asked for."""
        if instance.number_of_frames < 2:  # noqa: PLR2004  # nothing follows a single frame
            return
        self._instances[instance.id, instance.revision] = instance
        while len(self._instances) > _INSTANCES:
            self._instances.popitem(last=False)

    def forget(self, instance_id: str) -> None:
        """Drop what waits for a deleted instance."""
        for known in [known for known in self._instances if known[0] == instance_id]:
            del self._instances[known]
        for key in [key for key in self._wanted if key.instance_id == instance_id]:
            del self._wanted[key]

    def follow(self, key: FrameKey) -> None:
        """Note that a frame was asked for: the frames after it come next."""
        instance = self._instances.get(key[:2])
        if instance is None:
            return
        last = min(key.frame_index + FRAMES_AHEAD, instance.number_of_frames - 1)
        for frame_index in range(key.frame_index + 1, last + 1):
            following = key._replace(frame_index=frame_index)
            if following not in self._wanted and not self._cache.knows(following):
                self._wanted[following] = instance
        while len(self._wanted) > _WAITING:
            self._wanted.popitem(last=False)
        if self._wanted:
            self._wake.set()

    async def run(self) -> None:
        """Render one after another while the queue is idle, until cancelled."""
        while True:
            await self._wake.wait()
            if not self._wanted:
                self._wake.clear()
                continue
            key, instance = self._wanted.popitem(last=False)
            # People who wait go first; what is dropped here is rendered when it is asked for.
            if self._queue.is_idle:
                await self._try(instance, key)
            await asyncio.sleep(0)

    async def _try(self, instance: RenderableInstance, key: FrameKey) -> None:
        try:
            await self._render(instance, key)
        except Error:
            self._wanted.clear()
