"""Which instances this process is storing: perhaps in Orthanc already, not yet in the index."""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress


class PendingInstances:
    """Tells who compares the index with Orthanc what will be in the index by itself in a moment.

    Without it the change feed would have us read each header that an upload has just read.
    """

    def __init__(self) -> None:
        """Nothing is under way."""
        self._ids: dict[object, str | None] = {}
        self._lock = threading.Lock()
        self._landed = asyncio.Event()

    @contextmanager
    def track(self) -> Iterator[Callable[[str], None]]:
        """Count one file as under way for as long as the context is open.

        Yields:
            What to call with the Orthanc id of its instance, before it is sent; in any thread.
        """
        file = object()

        def add(instance_id: str) -> None:
            with self._lock:
                # A thread may come to this after its upload was cancelled.
                if file in self._ids:
                    self._ids[file] = instance_id

        with self._lock:
            self._ids[file] = None
        try:
            yield add
        finally:
            with self._lock:
                del self._ids[file]
            self._landed.set()

    def intersection(self, instance_ids: Collection[str]) -> list[str]:
        """Return those of some instances that are under way, in their order."""
        with self._lock:
            under_way = set(self._ids.values())
        return [instance_id for instance_id in instance_ids if instance_id in under_way]

    async def wait_for(self, instance_ids: Collection[str], *, seconds: float) -> None:
        """Return when none of some instances is under way, or after so long."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.intersection(instance_ids):
                    self._landed.clear()
                    await self._landed.wait()
