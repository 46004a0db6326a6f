"""Local files: private files and folders, and ranges of files that are read or sent."""

import errno
import io
import os
import secrets
import select
import socket
import ssl
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.errors import Error, FileRejected

_PASSWORD_BYTES = 32
"""256 bits can't be guessed, and are short enough for every configuration format."""


def make_private_folder(folder: Path) -> None:
    """Create a folder with its parents; only the owner may enter (mode 0700)."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write a file with mode 0600 atomically.

    The text is written to another file that is then renamed, so that a reader never sees a part of
    it, also after a crash. The file is private before the first byte is written.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def keep_password(path: Path) -> str:
    """Read a password from a file; the first call generates it.

    Returns:
        64 hexadecimal digits: they need no escaping in a URL, in JSON or in a key file of mongod.
    """
    if not path.exists():
        write_private(path, secrets.token_hex(_PASSWORD_BYTES))
    return read_private(path)


class PrivateFileUnusable(Error):
    """A file with a secret is damaged, or others may read it."""

    code = "PRIVATE_FILE_UNUSABLE"


def read_private(path: Path) -> str:
    """Read a file that holds a secret, without the white space around it.

    Raises:
        PrivateFileUnusable: Other users may read or change it, or it holds no text.
        OSError: It can't be read.
    """
    with path.open("rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        content = file.read()
    if mode & 0o077:
        raise PrivateFileUnusable(
            f"Other users may read or change {path} (mode {mode:04o}), which holds a secret. "
            f"Run: chmod 600 {path}"
        )
    try:
        text = content.decode("ascii").strip()
    except UnicodeDecodeError as exc:
        raise _damaged(path) from exc
    if not text:
        raise _damaged(path)
    return text


def _damaged(path: Path) -> PrivateFileUnusable:
    return PrivateFileUnusable(
        f"{path} is empty or damaged. Restore it from a backup; what it protects can't be used "
        "without it."
    )


_CHUNK_BYTES = 1024 * 1024


class FileRangeReader(io.RawIOBase):
    """A part of a file as a file object, read by position, so that several threads can read.

    Attributes:
        descriptor: Of the whole file; stays open when this is closed.
        begin: First byte of the part.
    """

    def __init__(self, descriptor: int, begin: int, size: int) -> None:
        """Begin to read a part.

        Args:
            descriptor: Of the whole file, open for as long as the part is read.
            begin: First byte of the part, as an offset into the whole file.
            size: In bytes.
        """
        self.descriptor = descriptor
        self.begin = begin
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        """Advise the kernel that the range will be read."""
        return True

    def seekable(self) -> bool:
        """Advise the kernel that reads are random."""
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Choose the byte to read next, as files of the system do."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            # As operating system files do; `zipfile` relies on it.
            raise OSError(errno.EINVAL, "negative seek position")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed says Buffer
        """Read into a buffer; 0 at the end."""
        wanted = min(len(buffer), max(self._size - self._position, 0))
        begin = self.begin + self._position
        target = memoryview(buffer)[:wanted]
        read = os.preadv(self.descriptor, [target], begin) if wanted else 0
        self._position += read
        return read


@dataclass(frozen=True, slots=True)
class FileRange:
    """Bytes of an open file, from `begin` up to `end`, as offsets into it."""

    descriptor: int
    begin: int
    end: int

    def __len__(self) -> int:
        """Return their number."""
        return self.end - self.begin

    def send(self, to: socket.socket) -> None:
        """Send them with `sendfile`, which costs a quarter of reading them; blocks.

        Raises:
            FileRejected: TRUNCATED when the file has become shorter.
            TimeoutError: The receiver reads nothing for as long as the socket's timeout.
            OSError: As the socket raises it.
        """
        if isinstance(to, ssl.SSLSocket):
            # Encryption needs the bytes in this process.
            for chunk in self._chunks():
                to.sendall(chunk)
            return
        position = self.begin
        while position < self.end:
            try:
                sent = os.sendfile(to.fileno(), self.descriptor, position, self.end - position)
            except BlockingIOError:
                _wait_until_writable(to)
                continue
            if not sent:
                raise became_shorter()
            position += sent

    def _chunks(self) -> Iterator[bytes]:
        position = self.begin
        while position < self.end:
            chunk = os.pread(self.descriptor, min(_CHUNK_BYTES, self.end - position), position)
            if not chunk:
                raise became_shorter()
            position += len(chunk)
            yield chunk


def extent_of(file: BinaryIO, begin: int, end: int) -> FileRange | None:
    """Return a range of a file for `sendfile`; None if the file can't be sent that way.

    Args:
        file: Open for reading.
        begin: First byte, as an offset into `file`.
        end: Behind the last byte.
    """
    raw = getattr(file, "raw", None)
    if not hasattr(os, "sendfile"):
        return None
    if isinstance(raw, FileRangeReader):
        return FileRange(raw.descriptor, raw.begin + begin, raw.begin + end)
    if isinstance(raw, io.FileIO):
        return FileRange(raw.fileno(), begin, end)
    return None


def became_shorter() -> FileRejected:
    """Return the error of a file that became shorter."""
    return FileRejected("TRUNCATED", "The file became shorter while it was read.")


def became_longer() -> FileRejected:
    """Return the error of a file that became longer."""
    return FileRejected("TRUNCATED", "The file became longer while it was read.")


def _wait_until_writable(opened: socket.socket) -> None:
    poll = select.poll()
    poll.register(opened, select.POLLOUT)
    seconds = opened.gettimeout()
    if not poll.poll(None if seconds is None else seconds * 1000):
        raise TimeoutError("timed out")
