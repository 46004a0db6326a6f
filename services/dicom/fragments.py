"""Encapsulated pixel data: a basic offset table and fragments, as items (PS3.5 A.4)."""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from services.dicom.byte_window import ByteWindow
from services.errors import FileRejected

_ITEM = (0xFFFE, 0xE000)
_END = (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF
_HEAD_BYTES = 8
_OFFSET_BYTES = 4


@dataclass(frozen=True, slots=True)
class Fragments:
    """What was found.

    Attributes:
        end: Behind the delimiter, in bytes from the beginning of the file.
        count: Fragments behind the basic offset table.
        offset_table_entries: Entries of that table.
    """

    end: int
    count: int
    offset_table_entries: int


def walk_fragments(
    window: ByteWindow, offset: int, head: struct.Struct, check: Callable[[int, int], None]
) -> Fragments:
    """Walk from the first item to the delimiter.

    Args:
        window: The file.
        offset: Of the first item.
        head: Unpacks group, element and length of an item.
        check: Called with offset and length of each value; raises what is wrong with it.

    Raises:
        FileRejected: TRUNCATED or MALFORMED, or from `check`.
    """
    lengths = table_bytes = 0
    while True:
        item = window.read_only(offset, _HEAD_BYTES)
        if len(item) < _HEAD_BYTES:
            message = "The file ends in the middle of its compressed pixel data."
            raise FileRejected("TRUNCATED", message)
        group, element, length = head.unpack(item)
        offset += _HEAD_BYTES
        if (group, element) == _END:
            return Fragments(offset, max(0, lengths - 1), table_bytes // _OFFSET_BYTES)
        if (group, element) != _ITEM or length == _UNDEFINED:
            message = "The compressed pixel data of this file is damaged."
            raise FileRejected("MALFORMED", message)
        check(offset, length)
        if lengths == 0:
            table_bytes = length
        lengths += 1
        offset += length
