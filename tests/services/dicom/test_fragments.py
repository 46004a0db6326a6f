"""Fragments prove how many of the declared frames are there, whatever an offset table says."""

import io
import struct

import pytest

from services.dicom.fragments import count_frames
from services.dicom.parser import walk

_START = b"\xff\xd8\xff\xe0"
_REST = b"\x01\x02\x03\x04"
_RLE = struct.pack("<16I", 1, 64, *[0] * 14)
_META = bytes(128) + b"DICM\2\0\x10\0UI\x16\x001.2.840.10008.1.2.4.50"


def _item(value: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + struct.pack("<I", len(value)) + value


def _file(fragments: list[bytes], entries: int) -> bytes:
    head = b"\x08\0\x60\0CS\2\0OT" + b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"
    items = b"".join(map(_item, [bytes(4 * entries), *fragments]))
    return _META + head + items + b"\xfe\xff\xdd\xe0\0\0\0\0"


@pytest.mark.parametrize(
    ("fragments", "entries", "declared", "expected"),
    [
        ([_START] * 3, 0, 3, 3),
        ([_START] * 3, 0, 5, 3),
        ([_START] * 3, 5, 5, 3),
        ([_START] * 3, 3, 2, 2),
        ([_START, _REST, _REST], 0, 1, 1),
        ([], 0, 1, 0),
        ([], 5, 5, 0),
        # Several fragments for a frame.
        ([_START, _REST, _START, _REST], 2, 2, 2),
        ([_START, _REST, _START, _REST], 0, 2, 2),
        ([_START, _REST, _START, _REST], 3, 3, 2),
        ([_START, _REST, _START, _REST], 0, 3, 2),
        ([_START, _REST, _START, _REST], 2, 3, 2),
        ([_START, _REST, _START, _START], 2, 3, 3),
        ([_RLE, _REST, _RLE, _REST, b""], 0, 3, 2),
        # No fragment tells where an image begins.
        ([_REST] * 4, 0, 2, 2),
    ],
)
def test_frames_in_fragments(
    fragments: list[bytes], entries: int, declared: int, expected: int
) -> None:
    file = io.BytesIO(_file(fragments, entries))
    assert count_frames(file, walk(file), declared) == expected


def test_frames_that_were_not_read_are_not_counted(ct_bytes: bytes) -> None:
    content = _file([_START] * 3, 0)
    file = io.BytesIO(content[:-20])
    assert count_frames(file, walk(file, file_size=len(content)), 3) is None
    native = io.BytesIO(ct_bytes)
    assert count_frames(native, walk(native), 3) is None
