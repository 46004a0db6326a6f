"""The instances that this process is storing: possibly in Orthanc, not yet in the index."""

import asyncio
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress


class PendingInstances:
    """The instances of uploads that are in progress.

    The follower of the change feed skips them, because their uploads index them; otherwise it would
    read each header a second time.
    """

    def __init__(self) -> None:
        self._ids: dict[object, str | None] = {}
        self._lock = threading.Lock()
        self._finished = asyncio.Event()

    @contextmanager
    def track(self) -> Iterator[Callable[[str], None]]:
        """Track one file for as long as the context is open.

        Yields:
            A function to call with Orthanc's id of the instance before the file is sent; any thread
            may call it.
        """
        file = object()

        def add(instance_id: str) -> None:
            with self._lock:
                # The thread may call this after its upload was cancelled.
                if file in self._ids:
                    self._ids[file] = instance_id

        with self._lock:
            self._ids[file] = None
        try:
            yield add
        finally:
            with self._lock:
                del self._ids[file]
            self._finished.set()

    def intersection(self, instance_ids: Collection[str]) -> list[str]:
        """Return which of some instances are pending, in the given order."""
        with self._lock:
            pending = set(self._ids.values())
        return [instance_id for instance_id in instance_ids if instance_id in pending]

    async def wait_for(self, instance_ids: Collection[str], *, seconds: float) -> None:
        """Wait until none of some instances is pending, at most `seconds`."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self.intersection(instance_ids):
                    self._finished.clear()
                    await self._finished.wait()
