"""The encoding of elements and items (PS3.5 7.1, 7.5)."""

import struct
from dataclasses import dataclass
from functools import lru_cache

from pydicom.datadict import dictionary_VR

from services.errors import FileRejected

LONG_VRS = frozenset(
    {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
)
"""VRs followed by two reserved bytes and a length of 32 bits (PS3.5 7.1.2)."""
SHORT_VRS = frozenset(
    {b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FD", b"FL", b"IS", b"LO", b"LT", b"PN"}
    | {b"SH", b"SL", b"SS", b"ST", b"TM", b"UI", b"UL", b"US"}
)
"""VRs followed by a length of 16 bits (PS3.5 7.1.2)."""
_KILO = 1000


def tag_text(group: int, element: int) -> str:
    """Write a tag as in the standard: `(7FE0,0010)`."""
    return f"({group:04X},{element:04X})"


def bytes_text(count: int) -> str:
    """Write a number of bytes for people: `512 kB`."""
    if count < _KILO:
        return f"{count} bytes"
    if count < _KILO * _KILO:
        return f"{count / _KILO:.0f} kB"
    return f"{count / _KILO / _KILO:.1f} MB"


def bytes_texts(first: int, second: int) -> tuple[str, str]:
    """Write two numbers of bytes for people, exactly where rounding would hide a difference."""
    texts = bytes_text(first), bytes_text(second)
    return texts if texts[0] != texts[1] else (f"{first:,} bytes", f"{second:,} bytes")


@lru_cache(maxsize=8192)
def is_sequence_tag(tag: int) -> bool:
    """Return whether the data dictionary (PS3.6) gives a tag the VR SQ; False for private tags."""
    try:
        return dictionary_VR(tag) == "SQ"
    except KeyError:
        return False


UNDEFINED_LENGTH = 0xFFFFFFFF
_SHORT_LENGTH_MAX = 0xFFFF
_ITEM = 0xFFFEE000
_SEQUENCE_END = 0xFFFEE0DD


@dataclass(frozen=True, slots=True)
class Encoding:
    """How a dataset is encoded."""

    is_implicit_vr: bool
    is_little_endian: bool

    @property
    def order(self) -> str:
        """The byte order in the notation of the struct module."""
        return "<" if self.is_little_endian else ">"


def element_bytes(
    tag: int, vr: str, value: bytes, encoding: Encoding, *, undefined_length: bool = False
) -> bytes:
    """Return an element; with undefined length it is closed by a sequence delimiter.

    Raises:
        FileRejected: MALFORMED when the value is too long for its VR.
    """
    length = UNDEFINED_LENGTH if undefined_length else len(value)
    tag_bytes = struct.pack(f"{encoding.order}HH", tag >> 16, tag & 0xFFFF)
    tail = delimiter_bytes(_SEQUENCE_END, 0, encoding) if undefined_length else b""
    if encoding.is_implicit_vr:
        return tag_bytes + struct.pack(f"{encoding.order}I", length) + value + tail
    code = vr.encode("ascii")
    if code in LONG_VRS:
        head = code + struct.pack(f"{encoding.order}HI", 0, length)
        return tag_bytes + head + value + tail
    if length > _SHORT_LENGTH_MAX:
        raise FileRejected("MALFORMED", "A text of this file is too long to be written in UTF-8.")
    return tag_bytes + code + struct.pack(f"{encoding.order}H", length) + value


def item_bytes(value: bytes, encoding: Encoding) -> bytes:
    """Return an item of a sequence with its length."""
    return delimiter_bytes(_ITEM, len(value), encoding) + value


def delimiter_bytes(tag: int, length: int, encoding: Encoding) -> bytes:
    """Return an item or delimiter without a value: these have no VR (PS3.5 7.5)."""
    return struct.pack(f"{encoding.order}HHI", tag >> 16, tag & 0xFFFF, length)


def pad(value: bytes, vr: str) -> bytes:
    """Make the length of a value even (PS3.5 6.2)."""
    return value + (b"\0" if vr == "UI" else b" ") if len(value) % 2 else value
