"""Orthanc's route for storing files, called by threads that read them as they send."""

import json
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, nullcontext
from functools import partial
from typing import BinaryIO, TypeVar

from services.errors import OrthancAborted, OrthancOutcomeUnknown
from services.files import FileRange
from services.observability.metrics import UPLOADED_BYTES
from services.orthanc.answers import StoreAnswer, StoredFile
from services.orthanc.beginning import FILE_SECONDS, FileBeginnings, open_file_beginnings
from services.orthanc.capacity import WHOLE_CAPACITY, OrthancCapacity
from services.orthanc.connection_pool import ConnectionPool
from services.orthanc.endpoints import Endpoint, Endpoints
from services.orthanc.identifiers import path_of
from services.orthanc.transport import CircuitBreaker, observed
from services.tasks import AbortSignal, finish_in_thread


class BytesInFlight:
    """Admits files in the order in which they came, while all under way stay within a limit.

    Args:
        max_bytes: The limit; a file that is larger goes alone.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._held_bytes = 0
        self._waiting: deque[object] = deque()
        self._changed = threading.Condition()

    @contextmanager
    def holding(self, size_bytes: int, abort: AbortSignal | None = None) -> Iterator[None]:
        """Wait until a file fits, and count it while inside; blocks.

        Args:
            size_bytes: Of the file.
            abort: Ends the waiting.

        Raises:
            OrthancAborted: The wait was aborted.
        """
        abort = abort or AbortSignal()
        with abort.calling(self._wake):
            self._enter(size_bytes, abort)
        try:
            yield
        finally:
            with self._changed:
                self._held_bytes -= size_bytes
                self._changed.notify_all()

    def _enter(self, size_bytes: int, abort: AbortSignal) -> None:
        # No file overtakes another, or small ones would keep a large one waiting without end.
        ticket = object()
        with self._changed:
            self._waiting.append(ticket)
            try:
                self._changed.wait_for(
                    lambda: abort.is_set or (self._waiting[0] is ticket and self._fits(size_bytes))
                )
                if abort.is_set:
                    raise OrthancAborted(detail="aborted")
                self._held_bytes += size_bytes
            finally:
                self._waiting.remove(ticket)
                self._changed.notify_all()

    def _wake(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _fits(self, size_bytes: int) -> bool:
        return not self._held_bytes or self._held_bytes + size_bytes <= self._max_bytes


_Answer = TypeVar("_Answer")

_STORE_SECONDS = 600
"""Orthanc answers a store when the whole file is on its disk."""


class OrthancFiles:
    """Stores and reads files.

    A file never comes to the event loop: the thread that sends it reads it, which costs a third
    of what a stream through the loop does.

    Attributes:
        beginnings: Reads files that are stored.

    Args:
        connections: To Orthanc.
        threads: Where to send.
        beginnings: With threads and connections of its own: a read never waits for uploads.
        bytes_at_once: Most bytes of files that are sent at once; a larger file goes alone.
        breaker: Refuses calls for a moment while Orthanc is away; None asks every time.
    """

    def __init__(
        self,
        connections: ConnectionPool,
        threads: Executor,
        beginnings: FileBeginnings,
        *,
        bytes_at_once: int = WHOLE_CAPACITY.store_bytes,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self.beginnings = beginnings
        self._connections = connections
        self._threads = threads
        self._guarded = breaker.guarded if breaker is not None else nullcontext
        self._in_flight = BytesInFlight(bytes_at_once)
        self._current = _Current()

    async def in_thread(self, work: Callable[[], _Answer]) -> _Answer:
        """Do blocking work that calls `store` in one of the threads.

        When the caller is cancelled, the connection is broken off, and the cancellation is raised
        only when the thread has ended: it reads files that the caller closes.
        """
        abort = AbortSignal()

        def with_signal() -> _Answer:
            # Between here and `store` lie checks that know nothing about threads.
            self._current.abort = abort
            return work()

        return await finish_in_thread(with_signal, executor=self._threads, abort=abort.set)

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
        abort = self._current.abort
        with self._in_flight.holding(size_bytes, abort), self._guarded():
            with observed("POST", "/instances"):
                answer = self._connections.post("/instances", pieces, size_bytes, abort=abort)
            UPLOADED_BYTES.inc(size_bytes)
            try:
                return StoreAnswer.from_json(json.loads(answer))
            except (ValueError, KeyError) as exc:
                raise OrthancOutcomeUnknown(detail="Orthanc's answer was cut off") from exc

    def fetch(self, instance_id: str, file: BinaryIO) -> None:
        """`GET /instances/{id}/file`: write a stored file to another one; blocks.

        Args:
            instance_id: Orthanc's identifier.
            file: Empty and seekable; written from its beginning.

        Raises:
            OrthancNotFound: The instance is gone.
            OrthancUnavailable: Orthanc does not answer.
        """
        path = path_of("instances", instance_id, "file")
        fetch = partial(self._connections.get_into, path, file, max_bytes=None)
        with self._guarded():
            try:
                fetch(abort=AbortSignal())
            except OrthancOutcomeUnknown:
                # Orthanc closes idle connections, and a request may cross that.
                file.seek(0)
                file.truncate()
                fetch(abort=AbortSignal())

    async def stored_files(self, instance_ids: Sequence[str]) -> list[StoredFile]:
        """`POST /tools/bulk-content`, as `OrthancClient.stored_files`, for what was just stored.

        Over the connections that the files took, and parsed in a thread: every single upload makes
        this call, and httpx would take half a millisecond of the event loop more.

        Raises:
            OrthancError: As `store`.
        """
        return await finish_in_thread(self._read_stored_files, instance_ids)

    def _read_stored_files(self, instance_ids: Sequence[str]) -> list[StoredFile]:
        path = "/tools/bulk-content"
        query = {"Resources": list(instance_ids), "Level": "Instance", "Metadata": True}
        body = json.dumps(query).encode()
        with self._guarded(), observed("POST", path):
            answer = self._connections.post(path, [body], len(body))
            try:
                return [StoredFile.from_json(entry) for entry in json.loads(answer)]
            except (ValueError, KeyError, TypeError) as exc:
                raise OrthancOutcomeUnknown(detail="Orthanc's answer was cut off") from exc


class _Current(threading.local):
    """What aborts the work of this thread."""

    abort: AbortSignal | None = None


@asynccontextmanager
async def open_orthanc_files(
    url: str,
    username: str,
    password: str,
    *,
    readers: Endpoints[ConnectionPool] | None = None,
    capacity: OrthancCapacity = WHOLE_CAPACITY,
    breaker: CircuitBreaker | None = None,
) -> AsyncIterator[OrthancFiles]:
    """Run the threads that send and read files; calls in progress at the end break off.

    Args:
        url: Base URL of Orthanc.
        username: Its user name, `""` for none.
        password: Its password.
        readers: To the Orthancs that files are read from, with `FILE_SECONDS`; None: this one.
        capacity: What may happen at once.
        breaker: Refuses calls for a moment while Orthanc is away; None asks every time.
    """
    connections = ConnectionPool(url, username, password, timeout_seconds=_STORE_SECONDS)
    readers = readers or Endpoints(
        Endpoint(ConnectionPool(url, username, password, timeout_seconds=FILE_SECONDS))
    )
    threads = ThreadPoolExecutor(capacity.stores, thread_name_prefix="files")
    try:
        async with open_file_beginnings(readers, threads=capacity.reads) as beginnings:
            yield OrthancFiles(
                connections,
                threads,
                beginnings,
                bytes_at_once=capacity.store_bytes,
                breaker=breaker,
            )
    finally:
        connections.close()
        await finish_in_thread(partial(threads.shutdown, cancel_futures=True))
