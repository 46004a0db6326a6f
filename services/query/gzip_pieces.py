"""Joins compressed pieces to one gzip file without compressing them again.

A piece is raw DEFLATE that ends at a byte boundary with a full flush, so pieces can be
concatenated (RFC 1951 3.2.4). Browsers only read the first member of a gzip file, so the pieces
become one member, whose checksum is computed from theirs.
"""

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Self

_LEVEL = 6
"""zlib's default: it compresses the headers of a series to a seventieth."""

_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
"""No name, no time, unknown system (RFC 1952 2.3)."""

_LAST_BLOCK = b"\x03\x00"
"""An empty final block with fixed codes (RFC 1951 3.2.6)."""

_POLYNOMIAL = 0xEDB88320
"""Of CRC-32 (RFC 1952 8), bits reversed: bit 31 stands for x^0."""

_BYTE_EXPONENT = 3
"""A byte is 2^3 bits."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A compressed piece.

    Attributes:
        body: Raw DEFLATE, without a final block.
        size: Uncompressed bytes.
        crc32: Of the uncompressed bytes.
    """

    body: bytes
    size: int
    crc32: int

    @classmethod
    def of(cls, content: bytes) -> Self:
        """Compress a piece."""
        deflating = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        body = deflating.compress(content) + deflating.flush(zlib.Z_FULL_FLUSH)
        return cls(body, len(content), zlib.crc32(content))

    def content(self) -> bytes:
        """Return the uncompressed bytes."""
        return zlib.decompressobj(-zlib.MAX_WBITS).decompress(self.body)


@lru_cache(maxsize=16)
def text_piece(text: str) -> Piece:
    """Return a short piece that is used often, such as a bracket."""
    return Piece.of(text.encode())


class GzipJoin:
    """Joins pieces: `begin`, `add` for each piece, `end`."""

    def __init__(self) -> None:
        self._crc32 = 0
        self._size = 0

    def begin(self) -> bytes:
        """Return the first bytes of the file."""
        return _HEADER

    def add(self, piece: Piece) -> bytes:
        """Add a piece and return its bytes."""
        self._crc32 = combine_crc32(self._crc32, piece.crc32, piece.size)
        self._size += piece.size
        return piece.body

    def end(self) -> bytes:
        """Return the last bytes of the file."""
        return _LAST_BLOCK + struct.pack("<II", self._crc32, self._size & 0xFFFFFFFF)


def joined(pieces: Iterable[Piece]) -> Iterator[bytes]:
    """Yield the bytes of one gzip file of pieces."""
    join = GzipJoin()
    yield join.begin()
    for piece in pieces:
        yield join.add(piece)
    yield join.end()


def combine_crc32(first: int, second: int, second_size: int) -> int:
    """Return the CRC-32 of the concatenation of two strings, as zlib's `crc32_combine`.

    Args:
        first: CRC-32 of the first.
        second: CRC-32 of the second.
        second_size: Length of the second, in bytes.
    """
    return _multiply(_power(second_size, _BYTE_EXPONENT), first) ^ second


def _multiply(one: int, other: int) -> int:
    """Multiply two polynomials modulo that of CRC-32."""
    product, bit = 0, 1 << 31
    while bit and one & (2 * bit - 1):
        if one & bit:
            product ^= other
        bit >>= 1
        other = other >> 1 ^ _POLYNOMIAL if other & 1 else other >> 1
    return product


def _power(number: int, exponent: int) -> int:
    """Return x^(number * 2^exponent) modulo the polynomial of CRC-32."""
    power = 1 << 31
    while number:
        if number & 1:
            power = _multiply(_squares()[exponent & 31], power)
        number >>= 1
        exponent += 1
    return power


@lru_cache(maxsize=1)
def _squares() -> tuple[int, ...]:
    """Return x^(2^n) for n from 0 to 31."""
    powers = [1 << 30]
    while len(powers) < 32:  # noqa: PLR2004  # bits of a CRC-32
        powers.append(_multiply(powers[-1], powers[-1]))
    return tuple(powers)
