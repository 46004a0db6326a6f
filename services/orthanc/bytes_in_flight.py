"""How much is sent to Orthanc at the same time: it holds whole files in memory."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class BytesInFlight:
    """Lets files pass in the order of their coming while all under way stay within a limit.

    Args:
        max_bytes: The limit; a file that is larger goes alone.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._turn = threading.Lock()
        self._freed = threading.Condition()

    @contextmanager
    def holding(self, size_bytes: int) -> Iterator[None]:
        """Wait until a file fits, and count it while inside; blocks.

        Args:
            size_bytes: Of the file.
        """
        # Nobody overtakes who waits, or small files would keep a large one waiting for ever.
        with self._turn, self._freed:
            self._freed.wait_for(lambda: self._fits(size_bytes))
            self._held_bytes += size_bytes
        try:
            yield
        finally:
            with self._freed:
                self._held_bytes -= size_bytes
                self._freed.notify()

    def _fits(self, size_bytes: int) -> bool:
        return not self._held_bytes or self._held_bytes + size_bytes <= self._max_bytes
