"""Files are read as far as wanted, by few threads, and broken connections are tried again."""

import asyncio
import io
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import BinaryIO

import pytest

from services.errors import OrthancNotFound, OrthancUnavailable
from services.orthanc.answers import StoredFile
from services.orthanc.beginning import FILE_SECONDS, FileBeginnings, open_file_beginnings
from services.orthanc.capacity import WHOLE_CAPACITY
from services.orthanc.connection_pool import ConnectionPool
from services.orthanc.endpoints import Endpoint, Endpoints
from services.tasks import AbortSignal
from tests.patience import PATIENCE_SECONDS

INSTANCE = "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af"
MIB = 1024 * 1024


def stored(size: int, pixel_data_offset: int | None) -> StoredFile:
    metadata = {} if pixel_data_offset is None else {"PixelDataOffset": str(pixel_data_offset)}
    return StoredFile(INSTANCE, "series", "uuid", size, metadata)


def only(url: str, *readers: str) -> Endpoints[ConnectionPool]:
    main, *others = (
        Endpoint(ConnectionPool(one, "", "", timeout_seconds=FILE_SECONDS))
        for one in (url, *readers)
    )
    return Endpoints(main, others)


class FileServer:
    """Sends a file to each request; `connections` counts the requests of each."""

    def __init__(self, content: bytes, *, status: bytes = b"200 OK", broken: int = 0) -> None:
        self.connections: list[int] = []
        self._content = content
        self._status = status
        self._broken = broken

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        async with server:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[FileBeginnings]:
        async with self.running() as url, open_file_beginnings(only(url)) as beginnings:
            yield beginnings

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        place = len(self.connections)
        self.connections.append(0)
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while await reader.readuntil(b"\r\n\r\n"):
                self.connections[place] += 1
                if self._broken:
                    self._broken -= 1
                    break
                length = b"Content-Length: %d\r\n\r\n" % len(self._content)
                writer.write(b"HTTP/1.1 %b\r\n%b%b" % (self._status, length, self._content))
                await writer.drain()
        writer.close()


def sizes(file: BinaryIO, file_size: int | None) -> tuple[int, int | None]:
    return file.seek(0, 2), file_size


async def test_small_files_are_read_whole_over_one_connection() -> None:
    server = FileServer(bytes(MIB))
    async with server.opened() as beginnings:
        for offset in (None, 100):
            assert await beginnings.read(stored(MIB, offset), sizes) == (MIB, None)
    assert server.connections == [2]


async def test_of_large_files_the_beginning_is_read_and_the_connection_closed() -> None:
    server = FileServer(bytes(64 * MIB))
    file = stored(64 * MIB, 2 * MIB)
    async with server.opened() as beginnings:
        for _ in range(2):
            read = await beginnings.read(file, sizes, pixel_data_bytes=100)
            assert read == (2 * MIB + 100, 64 * MIB)
    assert server.connections == [1, 1]


@pytest.mark.parametrize(("size", "offset"), [(2 * MIB, None), (2 * MIB, 2 * MIB - 50)])
async def test_a_file_without_a_beginning_of_its_own_is_read_whole(
    size: int, offset: int | None
) -> None:
    async with FileServer(bytes(size)).opened() as beginnings:
        read = await beginnings.read(stored(size, offset), sizes, pixel_data_bytes=100)
    assert read == (size, None)


async def test_a_connection_that_breaks_is_tried_once_more() -> None:
    server = FileServer(b"file", broken=1)
    async with server.opened() as beginnings:
        assert await beginnings.read(stored(4, None), sizes) == (4, None)
    server = FileServer(b"file", broken=2)
    async with server.opened() as beginnings:
        with pytest.raises(OrthancUnavailable):
            await beginnings.read(stored(4, None), sizes)
    assert sum(server.connections) == 2


async def test_an_instance_that_is_gone_is_not_parsed() -> None:
    async with FileServer(b"{}", status=b"404 Not Found").opened() as beginnings:
        with pytest.raises(OrthancNotFound):
            await beginnings.read(stored(4, None), sizes)


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    parsing, released = threading.Event(), threading.Event()
    ended = False

    def parse(file: BinaryIO, _: int | None) -> None:
        nonlocal ended
        parsing.set()
        released.wait(PATIENCE_SECONDS)
        ended = file.read() == b"file"

    async with FileServer(b"file").opened() as beginnings:
        reading = asyncio.create_task(beginnings.read(stored(4, None), parse))
        await asyncio.to_thread(parsing.wait, PATIENCE_SECONDS)
        reading.cancel()
        _, pending = await asyncio.wait([reading], timeout=0.05)
        assert pending
        released.set()
        with pytest.raises(asyncio.CancelledError):
            await reading
    assert ended


async def test_a_cancelled_caller_breaks_off_a_connection_that_hangs() -> None:
    asked = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(hang, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, open_file_beginnings(only(url)) as beginnings:
        reading = asyncio.create_task(beginnings.read(stored(4, None), sizes))
        await asked.wait()
        reading.cancel()
        async with asyncio.timeout(PATIENCE_SECONDS):
            with pytest.raises(asyncio.CancelledError):
                await reading


async def test_files_are_read_by_a_bounded_number_of_threads() -> None:
    gate = threading.Barrier(WHOLE_CAPACITY.reads)
    at_once: list[int] = []
    running = 0
    lock = threading.Lock()

    def parse(_: BinaryIO, __: int | None) -> None:
        nonlocal running
        with lock:
            running += 1
            at_once.append(running)
        gate.wait(PATIENCE_SECONDS)
        with lock:
            running -= 1

    async with FileServer(b"file").opened() as beginnings:
        await asyncio.gather(
            *(beginnings.read(stored(4, None), parse) for _ in range(3 * WHOLE_CAPACITY.reads))
        )
    assert max(at_once) == WHOLE_CAPACITY.reads


class FullDisk(io.BytesIO):
    def write(self, _: object) -> int:
        raise OSError(28, "No space left on device")


async def test_a_full_disk_here_is_no_fault_of_orthanc() -> None:
    server = await asyncio.start_server(FileServer(b"file")._serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    connections = ConnectionPool(url, "", "", timeout_seconds=PATIENCE_SECONDS)

    def read() -> None:
        connections.get_into("/file", FullDisk(), max_bytes=None, abort=AbortSignal())

    async with server:
        with pytest.raises(OSError, match="No space left"):
            await asyncio.to_thread(read)
        connections.close()


async def test_a_file_that_a_reader_does_not_have_is_asked_of_the_writer() -> None:
    behind, there = FileServer(b"", status=b"404 Not Found"), FileServer(bytes(10))
    async with (
        behind.running() as reader,
        there.running() as writer,
        open_file_beginnings(only(writer, reader)) as beginnings,
    ):
        assert await beginnings.read(stored(10, None), sizes) == (10, None)
    assert (behind.connections, there.connections) == ([1], [1])
