"""Bytes of files go out as they stand on the disk, whichever way the system takes them."""

import io
import os
import socket
import ssl
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest

from services.errors import FileRejected
from services.files import FileRange, FileRangeReader, extent_of

CONTENT = bytes(range(256)) * 8_000
"""2 MB: more than the buffers of two sockets hold."""


@pytest.fixture
def descriptor() -> Iterator[int]:
    with tempfile.TemporaryFile(buffering=0) as file:
        file.write(CONTENT)
        yield file.fileno()


class Receiver(threading.Thread):
    """Takes all that is sent to `sender`, until that is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.sender, self._receiver = socket.socketpair()
        self.sender.settimeout(10)
        self.received = b""

    def run(self) -> None:
        while piece := self._receiver.recv(70_000):
            self.received += piece

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.sender.close()
        self.join()
        self._receiver.close()


@pytest.fixture(params=["plain", "encrypted"])
def receiver(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Receiver:
    if request.param == "encrypted":
        # Encryption itself is the standard library's; which way the bytes take is ours.
        monkeypatch.setattr(ssl, "SSLSocket", socket.socket)
    return Receiver()


def test_an_extent_is_sent_whole(descriptor: int, receiver: Receiver) -> None:
    with receiver:
        FileRange(descriptor, 5, len(CONTENT) - 7).send(receiver.sender)
        FileRange(descriptor, 0, 3).send(receiver.sender)
        FileRange(descriptor, 9, 9).send(receiver.sender)
    assert receiver.received == CONTENT[5:-7] + CONTENT[:3]


def test_a_file_that_became_shorter_is_refused(descriptor: int, receiver: Receiver) -> None:
    with receiver, pytest.raises(FileRejected) as caught:
        FileRange(descriptor, 0, len(CONTENT) + 1).send(receiver.sender)
    assert caught.value.code == "TRUNCATED"
    assert receiver.received == CONTENT


def test_who_takes_nothing_is_not_waited_for_longer_than_the_timeout(descriptor: int) -> None:
    sender, silent = socket.socketpair()
    with sender, silent:
        sender.settimeout(0.05)
        with pytest.raises(TimeoutError):
            FileRange(descriptor, 0, len(CONTENT)).send(sender)


def test_who_went_away_is_told_as_the_socket_tells_it(descriptor: int) -> None:
    sender, gone = socket.socketpair()
    gone.close()
    with sender, pytest.raises(BrokenPipeError):
        FileRange(descriptor, 0, len(CONTENT)).send(sender)


def test_an_extent_is_where_the_bytes_of_a_file_are(descriptor: int, tmp_path: Path) -> None:
    part = io.BufferedReader(FileRangeReader(descriptor, 100, 1_000))
    assert extent_of(part, 10, 20) == FileRange(descriptor, 110, 120)
    path = tmp_path / "file"
    path.write_bytes(b"content")
    with path.open("rb") as opened:
        assert extent_of(opened, 1, 3) == FileRange(opened.fileno(), 1, 3)


def test_what_is_in_memory_has_no_extent() -> None:
    assert extent_of(io.BytesIO(b"content"), 1, 3) is None
    with tempfile.SpooledTemporaryFile(max_size=100) as spooled:
        assert extent_of(spooled, 1, 3) is None  # type: ignore[arg-type]  # BinaryIO but in name


def test_a_range_is_read_by_position_whatever_others_read(descriptor: int) -> None:
    one = io.BufferedReader(FileRangeReader(descriptor, 100, 1_000))
    other = io.BufferedReader(FileRangeReader(descriptor, 50_000, 10))
    assert one.read(5) == CONTENT[100:105]
    assert other.read() == CONTENT[50_000:50_010]
    assert one.seek(-3, os.SEEK_END) == 997
    assert one.read() == CONTENT[1_097:1_100]
    with pytest.raises(OSError, match="negative"):
        one.raw.seek(-1)
