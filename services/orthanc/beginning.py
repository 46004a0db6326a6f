"""The beginning of a stored file: its header, without the pixel data that follows.

Orthanc's routes that answer a header as text (`/tags`, `/instances-tags`) parse the file: they lose
letters of some character sets, and files with deeply nested sequences stop Orthanc there. Sending
the bytes of a file parses nothing. Orthanc 1.10 ignores `Range`, so the file is requested whole,
and the connection is closed as soon as the header has arrived: a file of 1 GiB costs this process
its header, and Orthanc one read of the file.

A thread fetches a file and parses it. Through the event loop and httpx the same cost twice the
processor time (`tests/benchmarks/README.md`).
"""

import tempfile
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import BinaryIO, TypeVar, cast

from services.errors import OrthancNotFound, OrthancOutcomeUnknown, OrthancUnavailable
from services.orthanc.answers import StoredFile
from services.orthanc.capacity import WHOLE_CAPACITY
from services.orthanc.connection_pool import ConnectionPool
from services.orthanc.endpoints import Endpoints
from services.orthanc.identifiers import path_of
from services.orthanc.transport import observed
from services.tasks import AbortSignal, finish_in_thread

_T = TypeVar("_T")

_MEMORY_BYTES = 1024 * 1024
"""Longer beginnings are written to a temporary file."""

PIXEL_DATA_BYTES = 256 * 1024
"""Of the pixel data: its head and the header of the first codestream."""

WHOLE_FILE_BYTES = 1024 * 1024
"""Files up to this size are read whole: keeping the connection costs less than reading the rest."""

FILE_SECONDS = 30
"""Longest silence of Orthanc while it sends a file."""


class FileBeginnings:
    """Reads the beginnings of stored files in threads.

    Args:
        connections: To each Orthanc.
        threads: Where files are fetched and parsed; its size bounds the memory.
    """

    def __init__(self, connections: Endpoints[ConnectionPool], threads: Executor) -> None:
        self._connections = connections
        self._threads = threads

    async def read(
        self,
        stored: StoredFile,
        parse: Callable[[BinaryIO, int | None], _T],
        *,
        pixel_data_bytes: int | None = 0,
    ) -> _T:
        """Read a stored file up to its pixel data; whole where Orthanc does not know the place.

        A caller that is cancelled breaks the connection off and waits for the thread.

        Args:
            stored: The file as Orthanc describes it (`POST /tools/bulk-content`).
            parse: Called in the thread with the file or its beginning, and with the size of the
                whole file in bytes when it is only the beginning.
            pixel_data_bytes: How much of the pixel data element to read as well; None: all of the
                file.

        Raises:
            OrthancNotFound: The instance is gone.
            OrthancTimedOut: Orthanc sends nothing for 30 s.
            OrthancUnavailable: Orthanc does not answer.
            Exception: Whatever `parse` raises.
        """
        abort = AbortSignal()
        work = partial(self._read, stored, parse, _bytes_of(stored, pixel_data_bytes), abort)
        return await finish_in_thread(work, executor=self._threads, abort=abort.set)

    def _read(
        self,
        stored: StoredFile,
        parse: Callable[[BinaryIO, int | None], _T],
        max_bytes: int | None,
        abort: AbortSignal,
    ) -> _T:
        path = path_of("instances", stored.instance_id, "file")
        with tempfile.SpooledTemporaryFile(max_size=_MEMORY_BYTES) as spooled:
            # typeshed does not know that it has everything that BinaryIO requires.
            file = cast("BinaryIO", spooled)
            with observed("GET", path):
                self._fetch(stored.instance_id, path, file, max_bytes=max_bytes, abort=abort)
            file.seek(0)
            return parse(file, None if max_bytes is None else stored.file_size_bytes)

    def _fetch(
        self,
        instance_id: str,
        path: str,
        file: BinaryIO,
        *,
        max_bytes: int | None,
        abort: AbortSignal,
    ) -> None:
        fault: OrthancUnavailable | None = None
        for endpoint in self._connections.ordered(instance_id):
            # Orthanc closes idle connections, and a request may cross that. Sending bytes changes
            # nothing and parses nothing: it may be requested again.
            for _ in range(2):
                file.seek(0)
                file.truncate()
                try:
                    with endpoint.guarded():
                        endpoint.connection.get_into(path, file, max_bytes=max_bytes, abort=abort)
                except (OrthancUnavailable, OrthancNotFound) as exc:
                    if abort.is_set or not self._connections.may_ask_another(endpoint, exc):
                        raise
                    fault = fault or (exc if isinstance(exc, OrthancUnavailable) else None)
                    if not isinstance(exc, OrthancOutcomeUnknown):
                        break
                else:
                    return
        raise fault or OrthancUnavailable


def _bytes_of(stored: StoredFile, pixel_data_bytes: int | None) -> int | None:
    """Return how much of a file to read, None for all of it."""
    if pixel_data_bytes is None:
        return None
    size, offset = stored.file_size_bytes, stored.pixel_data_offset
    if offset is None or size <= max(WHOLE_FILE_BYTES, offset + pixel_data_bytes):
        return None
    return offset + pixel_data_bytes


@asynccontextmanager
async def open_file_beginnings(
    connections: Endpoints[ConnectionPool], *, threads: int = WHOLE_CAPACITY.reads
) -> AsyncIterator[FileBeginnings]:
    """Run the threads that read files; calls in progress at the end break off.

    Args:
        connections: To each Orthanc, with `FILE_SECONDS`; closed at the end.
        threads: Files that are read at once.
    """
    executor = ThreadPoolExecutor(threads, thread_name_prefix="beginnings")
    try:
        yield FileBeginnings(connections, executor)
    finally:
        for pool in connections:
            pool.close()
        await finish_in_thread(partial(executor.shutdown, cancel_futures=True))
