"""A file of a form: some bytes of the one temporary file that its request was written to."""

import errno
import io
import os
from dataclasses import dataclass, field
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class UploadedFile:
    """A file part: a range of the request's temporary file.

    Valid until the form is closed.

    Attributes:
        field_name: Of the part.
        name: As the sender called it, `""` when it did not.
        begin: First byte, as an offset into the temporary file.
        size: In bytes.
    """

    field_name: str
    name: str
    begin: int
    size: int
    descriptor: int = field(repr=False)

    def open(self) -> BinaryIO:
        """Open it for reading, seekable; may be opened more than once, in any thread."""
        return io.BufferedReader(_Range(self.descriptor, self.begin, self.size))


class _Range(io.RawIOBase):
    """Some bytes of a file, read by position, so that threads need no turns."""

    def __init__(self, descriptor: int, begin: int, size: int) -> None:
        self._descriptor = descriptor
        self._begin = begin
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if start + offset < 0:
            # As files of the system do: `zipfile` counts on it.
            raise OSError(errno.EINVAL, "negative seek position")
        self._position = start + offset
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]  # typeshed says Buffer
        wanted = min(len(buffer), max(self._size - self._position, 0))
        begin = self._begin + self._position
        target = memoryview(buffer)[:wanted]
        read = os.preadv(self._descriptor, [target], begin) if wanted else 0
        self._position += read
        return read
