"""The instances that follow one in its series."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

from services.frames.instances import RenderableInstance
from services.frames.recent import KEPT_SECONDS, RecentInstances

FollowingFinder = Callable[[RenderableInstance, int], Awaitable[Sequence[RenderableInstance]]]
"""Finds the instances after one in the order of its series, at most so many."""

AHEAD = 8
"""A third of a second at 25 images/s: longer than any single cold frame takes."""

_FOUND = 24
"""Instances of one look-up: a viewer that scrolls asks the index for every 16th image only."""

_PLACES = 256


class Neighbours:
    """Finds what follows an instance, and keeps it for 2 seconds.

    Args:
        find: Asks the index.
        recent: Is given what was found.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        find: FollowingFinder,
        recent: RecentInstances,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._find = find
        self._recent = recent
        self._clock = clock
        self._following: OrderedDict[str, tuple[float, Sequence[RenderableInstance]]] = (
            OrderedDict()
        )

    async def after(self, instance: RenderableInstance) -> Sequence[RenderableInstance]:
        """Return the next 8 instances of a series, fewer at its end; without `instance` itself.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        kept_until, following = self._following.get(instance.id, (0.0, ()))
        if self._clock() >= kept_until:
            following = await self._find(instance, _FOUND)
            self._recent.keep(following)
            self._keep(instance, following)
        return following[:AHEAD]

    def clear(self) -> None:
        """Forget all places: a series has changed."""
        self._following.clear()

    def _keep(self, instance: RenderableInstance, following: Sequence[RenderableInstance]) -> None:
        kept_until = self._clock() + KEPT_SECONDS
        is_end = len(following) < _FOUND
        for place, one in enumerate((instance, *following)):
            if is_end or len(following) - place >= AHEAD:
                self._following[one.id] = kept_until, following[place:]
                self._following.move_to_end(one.id)
        while len(self._following) > _PLACES:
            self._following.popitem(last=False)
