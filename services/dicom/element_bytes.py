"""Elements as bytes (PS3.5 7.1)."""

import struct
from dataclasses import dataclass

from services.dicom.element_names import LONG_VRS
from services.errors import FileRejected

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
