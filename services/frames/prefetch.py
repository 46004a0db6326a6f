"""Renders the frames that a viewer will probably request next, while the queue is idle.

These are the frames after a requested one, and for single-frame instances its neighbours in the
series.
"""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Collection, Sequence

from cachetools import TTLCache

from services.errors import Error, OrthancUnavailable
from services.frames.cache import KEPT_SECONDS, FrameCache, FrameKey, InstanceCache
from services.frames.records import RenderableInstance
from services.tasks import HANGING_SECONDS, heartbeat

FollowingFinder = Callable[[RenderableInstance, int], Awaitable[Sequence[RenderableInstance]]]
"""Finds the instances after one in the order of its series, at most so many."""

AHEAD = 8
"""A third of a second at 25 images/s: longer than any single cold frame takes."""

_FOUND = 24
"""Instances of one look-up: a viewer that scrolls asks the index for every 16th image only."""

_PLACES = 256


class Neighbours:
    """Finds the instances after one in its series, and caches them for 2 seconds.

    Args:
        find: Asks the index.
        recent: Is given what was found.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        find: FollowingFinder,
        recent: InstanceCache,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._recent = recent
        self._following: TTLCache[str, Sequence[RenderableInstance]] = TTLCache(
            _PLACES, KEPT_SECONDS, timer=clock
        )

    async def after(self, instance: RenderableInstance) -> Sequence[RenderableInstance]:
        """Return the next 8 instances of a series, fewer at its end; without `instance` itself.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        following = self._following.get(instance.id)
        if following is None:
            following = await self._find(instance, _FOUND)
            self._recent.keep(following)
            self._keep(instance, following)
        return following[:AHEAD]

    def clear(self) -> None:
        """Discard everything, because a series has changed."""
        self._following.clear()

    def _keep(self, instance: RenderableInstance, following: Sequence[RenderableInstance]) -> None:
        is_end = len(following) < _FOUND
        for place, one in enumerate((instance, *following)):
            if is_end or len(following) - place >= AHEAD:
                self._following[one.id] = following[place:]


_log = logging.getLogger(__name__)

_ASKED = 8
"""Frames whose followers are still to be found; older ones give way."""

_FOLLOWED_SECONDS = 1.0
"""A frame that is asked for again within this time makes no work again."""

_FOLLOWED = 256
"""Frames of which that is known."""

_WANTED = 32
"""Frames that wait; older ones give way: the player has moved on."""


class LookAhead:
    """Renders what comes next; failures are left to the request itself.

    Args:
        cache: Where the pictures go.
        is_idle: Returns whether no one waits for a frame.
        is_suspect: Returns whether frames of an instance ended a renderer.
        instances: Finds instances.
        neighbours: Finds what follows in a series.
        render: Renders a frame into the cache, or refuses it.
    """

    def __init__(
        self,
        cache: FrameCache,
        *,
        is_idle: Callable[[], bool],
        is_suspect: Callable[[str, str], bool],
        instances: InstanceCache,
        neighbours: Neighbours,
        render: Callable[[RenderableInstance, FrameKey], Awaitable[object]],
    ) -> None:
        self._cache = cache
        self._is_idle = is_idle
        self._is_suspect = is_suspect
        self._instances = instances
        self._neighbours = neighbours
        self._render = render
        self._followed: TTLCache[FrameKey, bool] = TTLCache(_FOLLOWED, _FOLLOWED_SECONDS)
        self._asked: OrderedDict[FrameKey, None] = OrderedDict()
        self._wanted: OrderedDict[FrameKey, RenderableInstance] = OrderedDict()
        self._wake = asyncio.Event()

    def follow(self, key: FrameKey) -> None:
        """Note that a frame was requested."""
        if not self._cache.is_on or key in self._followed:
            return
        self._followed[key] = True
        self._asked[key] = None
        if len(self._asked) > _ASKED:
            self._asked.popitem(last=False)
        self._wake.set()

    def discard(self, instance_ids: Collection[str]) -> None:
        """Drop waiting frames of instances that were removed or replaced."""
        self._neighbours.clear()
        for key in [key for key in self._wanted if key.instance_id in instance_ids]:
            del self._wanted[key]

    async def run(self) -> None:
        """Render one after another while the queue is idle, until cancelled."""
        with heartbeat("look-ahead of frames") as alive:
            while True:
                # Waiting for the next request may take any time.
                alive.stop()
                await self._wake.wait()
                alive.beat(HANGING_SECONDS)
                try:
                    await self._step()
                except OrthancUnavailable:
                    self._wanted.clear()
                except Error:
                    # It concerns this frame only; a request for the frame gets the error itself.
                    continue
                except Exception as exc:  # noqa: BLE001  # one frame must not stop the others
                    _log.warning("a frame can't be rendered ahead", exc_info=exc)
                await asyncio.sleep(0)

    async def _step(self) -> None:
        if self._asked:
            await self._want_following(self._asked.popitem()[0])
        elif self._wanted:
            key, instance = self._wanted.popitem(last=False)
            # People who wait go first; what is dropped here is rendered when it is asked for.
            if self._is_idle() and not self._is_suspect(key.instance_id, key.revision):
                await self._render(instance, key)
        else:
            self._wake.clear()

    async def _want_following(self, key: FrameKey) -> None:
        instance = await self._instances.find(key.instance_id, key.revision)
        if instance is None:
            return
        for following, of in await self._following(instance, key):
            if following not in self._wanted and not self._cache.knows(following):
                self._wanted[following] = of
        while len(self._wanted) > _WANTED:
            self._wanted.popitem(last=False)

    async def _following(
        self, instance: RenderableInstance, key: FrameKey
    ) -> Sequence[tuple[FrameKey, RenderableInstance]]:
        if instance.number_of_frames > 1:
            first = key.frame_index + 1
            last = min(key.frame_index + AHEAD, instance.number_of_frames - 1)
            return [(key._replace(frame_index=i), instance) for i in range(first, last + 1)]
        if key.variant.max_size is not None:
            # A thumbnail: lists show one per series, without its neighbours.
            return []
        neighbours = await self._neighbours.after(instance)
        return [(FrameKey(of.id, of.revision, 0, key.variant), of) for of in neighbours]
