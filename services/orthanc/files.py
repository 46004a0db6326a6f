"""Orthanc's route for storing files, called by threads that read them as they send."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, nullcontext
from typing import TypeVar

from services.errors import OrthancOutcomeUnknown
from services.files import FileRange
from services.orthanc.answers import StoreAnswer
from services.orthanc.connection_pool import ConnectionPool
from services.orthanc.transport import CircuitBreaker


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


_Answer = TypeVar("_Answer")

_STORE_SECONDS = 600
"""Orthanc answers a store when the whole file is on its disk."""

_STORES_AT_ONCE = 16
"""Orthanc's own pool of HTTP threads is larger; its disk is the limit long before."""

_BYTES_AT_ONCE = 1024**3
"""Orthanc 1.10.1 takes 3.2 bytes of memory for each byte of a file while it stores it."""


class OrthancFiles:
    """Stores files.

    A file never comes to the event loop: the thread that sends it reads it, which costs a third
    of what a stream through the loop does.

    Args:
        connections: To Orthanc.
        threads: Where to send.
        breaker: Refuses calls for a moment while Orthanc is away; None asks every time.
    """

    def __init__(
        self,
        connections: ConnectionPool,
        threads: Executor,
        *,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self._connections = connections
        self._threads = threads
        self._guarded = breaker.guarded if breaker is not None else nullcontext
        self._in_flight = BytesInFlight(_BYTES_AT_ONCE)

    async def in_thread(self, work: Callable[[], _Answer]) -> _Answer:
        """Do blocking work that calls `store` in one of the threads."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def store(self, pieces: Iterable[bytes | FileRange], size_bytes: int) -> StoreAnswer:
        """`POST /instances`: store one DICOM file; blocks.

        Args:
            pieces: The file's bytes, or where they are; read while they are sent.
            size_bytes: Their number.

        Raises:
            OrthancRefused: Orthanc can't read the file.
            OrthancFull: There is no room left.
            OrthancUnavailable: Nothing was stored.
            OrthancOutcomeUnknown: It may have been stored; look its identifier up.
        """
        with self._in_flight.holding(size_bytes), self._guarded():
            answer = self._connections.post("/instances", pieces, size_bytes)
            try:
                return StoreAnswer.from_json(json.loads(answer))
            except (ValueError, KeyError) as exc:
                raise OrthancOutcomeUnknown(detail="Orthanc's answer was cut off") from exc


@asynccontextmanager
async def open_orthanc_files(
    url: str, username: str, password: str, *, breaker: CircuitBreaker | None = None
) -> AsyncIterator[OrthancFiles]:
    """Run the threads that send files; what is under way at the end breaks off.

    Args:
        url: Base URL of Orthanc.
        username: Its user name, `""` for none.
        password: Its password.
        breaker: Refuses calls for a moment while Orthanc is away; None asks every time.
    """
    connections = ConnectionPool(url, username, password, timeout_seconds=_STORE_SECONDS)
    threads = ThreadPoolExecutor(_STORES_AT_ONCE, thread_name_prefix="files")
    try:
        yield OrthancFiles(connections, threads, breaker=breaker)
    finally:
        connections.close()
        await asyncio.to_thread(threads.shutdown, cancel_futures=True)
