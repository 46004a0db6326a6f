"""Bounds-checked reads of a few bytes anywhere in a large file."""

from typing import BinaryIO

_WINDOW_BYTES = 16 * 1024
"""Headers are a few kB: one read shows most of them, and little of the pixel data."""

_SEARCHED_BYTES = 64 * 1024


class ByteWindow:
    """A seekable file seen through a window of 16 kB, so that small reads cost no system call."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._start = 0
        self._bytes = b""
        self._zeros_from: int | None = None
        self.size = file.seek(0, 2)

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes; fewer than `length` only at the end of the file."""
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._bytes):
            self._file.seek(offset)
            self._bytes = self._file.read(max(length, _WINDOW_BYTES))
            self._start, begin = offset, 0
        return self._bytes[begin : begin + length]

    def at_hand(self, offset: int) -> tuple[bytes, int]:
        """Return the bytes of the window and the index in them of an offset that was read last."""
        return self._bytes, offset - self._start

    def read_only(self, offset: int, length: int) -> bytes:
        """Return bytes without looking ahead: what follows is pixel data."""
        self._file.seek(offset)
        return self._file.read(length)

    def is_zero_from(self, offset: int) -> bool:
        """Tell whether nothing but zero bytes follows; the file is searched once, from its end."""
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
