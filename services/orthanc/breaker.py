"""A circuit breaker: while Orthanc is away, callers learn it at once."""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from services.errors import Error, OrthancTimedOut, OrthancUnavailable

FAULTS = 3
FAULT_WINDOW_SECONDS = 10.0
OPEN_SECONDS = 0.5
"""The embedded Orthanc is back within 1 s: a longer pause would outlast its absence."""


class CircuitBreaker:
    """Opens after 3 connection faults within 10 s, then lets one call probe at a time.

    The event loop and threads share it.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._faults: deque[float] = deque(maxlen=FAULTS)
        self._closed_again_at: float | None = None
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether calls are refused or only one of them probes."""
        return self._closed_again_at is not None

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Count what one call finds out.

        Raises:
            OrthancUnavailable: The breaker is open; nothing was sent.
        """
        self._admit()
        try:
            yield
        except OrthancTimedOut:
            raise
        except OrthancUnavailable:
            self._record_fault()
            raise
        except Error:
            # Orthanc answered, if only with an error: it is there.
            self._close()
            raise
        else:
            self._close()

    def _admit(self) -> None:
        with self._lock:
            if self._closed_again_at is None:
                return
            now = self._clock()
            if now < self._closed_again_at:
                raise OrthancUnavailable(detail="circuit breaker is open")
            # This call probes; the others go on waiting for what it finds.
            self._closed_again_at = now + OPEN_SECONDS

    def _record_fault(self) -> None:
        with self._lock:
            now = self._clock()
            self._faults.append(now)
            is_burst = len(self._faults) == FAULTS and now - self._faults[0] <= FAULT_WINDOW_SECONDS
            if is_burst or self._closed_again_at is not None:
                self._closed_again_at = now + OPEN_SECONDS

    def _close(self) -> None:
        with self._lock:
            self._faults.clear()
            self._closed_again_at = None
