"""Instances that were looked up moments ago."""

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterable

from services.frames.instances import RenderableInstance

InstanceFinder = Callable[[str], Awaitable[RenderableInstance | None]]

KEPT_SECONDS = 2.0
"""A player asks for all its frames of one instance; a changed `useOrthancPreview` waits no longer
than this, and so does a removal by another process."""

_INSTANCES = 256


class RecentInstances:
    """Looks instances up, and does not ask again for 2 seconds.

    Args:
        find: Asks the index.
        clock: Seconds that never go back.
    """

    def __init__(self, find: InstanceFinder, clock: Callable[[], float] = time.monotonic) -> None:
        self._find = find
        self._clock = clock
        self._instances: OrderedDict[str, tuple[float, RenderableInstance]] = OrderedDict()

    async def find(self, instance_id: str, revision: str) -> RenderableInstance | None:
        """Return an instance if it is there in this revision.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        kept_until, instance = self._instances.get(instance_id, (0.0, None))
        if instance is None or self._clock() >= kept_until or instance.revision != revision:
            instance = await self._find(instance_id)
            if instance is None or instance.revision != revision:
                return None
            self.keep([instance])
        return instance

    def keep(self, instances: Iterable[RenderableInstance]) -> None:
        """Keep instances as the index holds them now."""
        kept_until = self._clock() + KEPT_SECONDS
        for instance in instances:
            self._instances[instance.id] = kept_until, instance
            self._instances.move_to_end(instance.id)
        while len(self._instances) > _INSTANCES:
            self._instances.popitem(last=False)

    def discard(self, instance_id: str) -> None:
        """Forget an instance that was removed or replaced."""
        self._instances.pop(instance_id, None)
