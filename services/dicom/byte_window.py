"""Buffered reads at any offset of a file, for the walk over its elements."""

from typing import BinaryIO

_WINDOW_BYTES = 16 * 1024
"""Most headers have a few kB: one read is enough for them and reads few pixels."""

_SEARCHED_BYTES = 64 * 1024


class ByteWindow:
    """A seekable file seen through a window of 16 kB, so that small reads cost no system call."""

    def __init__(self, file: BinaryIO, size: int | None = None) -> None:
        """Open the window.

        Args:
            file: The file, or its beginning.
            size: Of the whole file, in bytes, when `file` is only its beginning.
        """
        self._file = file
        self._start = 0
        self._bytes = b""
        self._zeros_from: int | None = None
        self.is_whole = size is None
        self.size = file.seek(0, 2) if size is None else size

    def read(self, offset: int, length: int) -> bytes:
        """Return `length` bytes, or fewer at the end of the file."""
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._bytes):
            self._file.seek(offset)
            self._bytes = self._file.read(max(length, _WINDOW_BYTES))
            self._start, begin = offset, 0
        return self._bytes[begin : begin + length]

    def view(self, offset: int) -> tuple[bytes, int]:
        """Return the bytes of the window, and the index in them of an offset just read."""
        return self._bytes, offset - self._start

    def read_only(self, offset: int, length: int) -> bytes:
        """Return bytes without reading ahead: pixel data follows them."""
        self._file.seek(offset)
        return self._file.read(length)

    def is_zero_from(self, offset: int) -> bool:
        """Return whether only zero bytes follow; searches the file once, from its end."""
        if self._zeros_from is None:
            self._zeros_from = self._trailing_zeros()
        return offset >= self._zeros_from

    def _trailing_zeros(self) -> int:
        """Return where the zero bytes at the end of the file begin."""
        end = self.size
        while end:
            start = max(0, end - _SEARCHED_BYTES)
            self._file.seek(start)
            rest = self._file.read(end - start).rstrip(b"\0")
            if rest:
                return start + len(rest)
            end = start
        return 0
