"""No byte of another file is ever sent, however an upload ends: real threads and descriptors."""

import asyncio
import hashlib
import io
import os
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian

from services.dicom.layout import WalkLimits
from services.files import FileRangeReader
from services.ingest.archives import ArchiveLimits
from services.ingest.service import Ingest, SentFile
from services.ingest.storing import FileStorage
from services.orthanc.files import open_orthanc_files

if TYPE_CHECKING:
    from services.orthanc.client import OrthancClient

_PIXEL_BYTES = 16 * 1024 * 1024
"""Beyond what the buffers of both sockets hold: the thread is in the middle of the file."""

_BEGINNING_BYTES = 256 * 1024


class StallingOrthanc:
    """Reads the beginning of an upload, then nothing until it is released."""

    def __init__(self) -> None:
        self.received = bytearray()
        self.stalls = threading.Event()
        self.released = threading.Event()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        opened, _ = self._listening.accept()
        with opened:
            while len(self.received) < _BEGINNING_BYTES:
                self.received += opened.recv(65_536)
            self.stalls.set()
            self.released.wait(30)
            try:
                while chunk := opened.recv(1024 * 1024):
                    self.received += chunk
            except ConnectionError:
                return

    @property
    def body(self) -> bytes:
        return bytes(self.received).partition(b"\r\n\r\n")[2]

    def close(self) -> None:
        self.released.set()
        self._thread.join()
        self._listening.close()


@pytest.fixture
def orthanc() -> Iterator[StallingOrthanc]:
    with closing(StallingOrthanc()) as running:
        yield running


@pytest.fixture(scope="module")
def content() -> bytes:
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    dataset.remove_private_tags()
    dataset.pop("DataSetTrailingPadding", None)
    dataset.Rows, dataset.Columns = 1024, _PIXEL_BYTES // 2048
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.PixelData = b"A" * _PIXEL_BYTES
    written = io.BytesIO()
    dataset.save_as(written)
    return bytes(128) + written.getvalue()[128:]


async def send(url: str, content: bytes, *neighbours: SentFile) -> None:
    """Send a file as a request does: from a temporary file that is closed at the end."""
    async with open_orthanc_files(url, "", "") as files:
        storage = FileStorage(cast("OrthancClient", None), files, _index, WalkLimits())
        ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=4)
        with tempfile.TemporaryFile(buffering=0) as spool:
            spool.write(content)
            descriptor = spool.fileno()
            sent = SentFile(
                "a.dcm", lambda: io.BufferedReader(FileRangeReader(descriptor, 0, len(content)))
            )
            await ingest.store([sent, *neighbours])


async def _index(_: object) -> None:
    raise AssertionError("nothing was stored")


class Intruder:
    """Files of other bytes under every descriptor number that becomes free."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "other"
        self._path.write_bytes(b"B" * (2 * _PIXEL_BYTES))
        self._descriptors: list[int] = []

    def take_free_numbers(self) -> None:
        self._descriptors += [os.open(self._path, os.O_RDONLY) for _ in range(16)]

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)


@pytest.fixture
def intruder(tmp_path: Path) -> Iterator[Intruder]:
    with closing(Intruder(tmp_path)) as files:
        yield files


def expect_only(orthanc: StallingOrthanc, content: bytes) -> None:
    orthanc.close()
    body = orthanc.body
    assert 0 < len(body) < len(content)
    assert _md5(body) == _md5(content[: len(body)])


def _md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


async def test_a_cancelled_upload_sends_nothing_of_another_file(
    orthanc: StallingOrthanc, content: bytes, intruder: Intruder
) -> None:
    sending = asyncio.create_task(send(orthanc.url, content))
    await asyncio.to_thread(orthanc.stalls.wait)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        async with asyncio.timeout(20):
            await sending
    intruder.take_free_numbers()
    expect_only(orthanc, content)


async def test_an_upload_that_is_cancelled_again_and_again_sends_nothing_of_another_file(
    orthanc: StallingOrthanc, content: bytes, intruder: Intruder
) -> None:
    sending = asyncio.create_task(send(orthanc.url, content))
    await asyncio.to_thread(orthanc.stalls.wait)
    while not sending.done():
        sending.cancel()
        await asyncio.sleep(0)
    intruder.take_free_numbers()
    expect_only(orthanc, content)


def test_the_end_of_the_event_loop_sends_nothing_of_another_file(
    orthanc: StallingOrthanc, content: bytes, intruder: Intruder
) -> None:
    """As the end of the server after its grace period, and Ctrl-C in a command."""

    async def end_while_sending() -> None:
        sending = asyncio.create_task(send(orthanc.url, content))
        sending.add_done_callback(lambda _: intruder.take_free_numbers())
        await asyncio.to_thread(orthanc.stalls.wait)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        asyncio.run(end_while_sending())
    expect_only(orthanc, content)


async def test_an_error_of_a_neighbour_sends_nothing_of_another_file(
    orthanc: StallingOrthanc, content: bytes, intruder: Intruder
) -> None:
    def stop() -> io.BytesIO:
        orthanc.stalls.wait(30)
        raise RuntimeError("neighbour")

    with pytest.raises(RuntimeError, match="neighbour"):
        async with asyncio.timeout(20):
            await send(orthanc.url, content, SentFile("b.dcm", stop))
    intruder.take_free_numbers()
    expect_only(orthanc, content)
