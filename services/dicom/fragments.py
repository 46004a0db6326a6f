"""Frames in the fragments of encapsulated pixel data (PS3.5 A.4)."""

from typing import BinaryIO

from services.dicom.layout import FileLayout

MARK_BYTES = 12
"""Of a fragment: enough to tell whether an image begins in it."""

ENDED_IMAGES = (
    b"\xff\xd8",  # SOI of JPEG and JPEG-LS
    b"\xff\x4f\xff\x51",  # SOC and SIZ of JPEG 2000
    b"\x00\x00\x00\x0cjP  ",  # signature box of a JP2 file
)
"""First bytes of images of the kinds that end with a marker."""

_STARTS = (
    *ENDED_IMAGES,
    b"\xff\x0a",  # codestream of JPEG XL (ISO/IEC 18181-1)
    b"\x00\x00\x00\x0cJXL ",
)

_RLE_SEGMENTS = range(1, 16)
_RLE_FIRST_SEGMENT = 64
"""The RLE header: number of segments, at most 15, and the offset of the first (PS3.5 G.5)."""

_ITEM_HEAD_BYTES = 8


def is_start(mark: bytes) -> bool:
    """Return whether bytes begin an encoded image of a kind that DICOM knows."""
    if mark.startswith(_STARTS):
        return True
    segments, first = (int.from_bytes(mark[at : at + 4], "little") for at in (0, 4))
    return segments in _RLE_SEGMENTS and first == _RLE_FIRST_SEGMENT


def count_frames(file: BinaryIO, layout: FileLayout, declared: int) -> int | None:
    """Return how many of the declared frames the fragments hold. Blocking.

    Where a frame has several fragments, those that begin an image are counted: offset tables are
    often absent or wrong.

    Args:
        file: Seekable; its position changes.
        layout: What `walk` found in it.
        declared: NumberOfFrames.

    Returns:
        None when the pixel data is not encapsulated or was not read to its end.
    """
    begin, fragments = layout.pixel_data_offset, layout.fragment_count
    if not layout.pixel_data_is_encapsulated or not layout.is_whole or begin is None:
        return None
    if fragments <= declared or declared == 1 or layout.is_deflated:
        return min(fragments, declared)
    # Where no fragment begins an image, the renderer says why it can't be shown.
    return min(_count_starts(file, begin, fragments), declared) or declared


def _count_starts(file: BinaryIO, begin: int, fragments: int) -> int:
    starts, place = 0, _end_of_item(file, begin)
    for _ in range(fragments):
        file.seek(place)
        item = file.read(_ITEM_HEAD_BYTES + MARK_BYTES)
        length = int.from_bytes(item[4:_ITEM_HEAD_BYTES], "little")
        starts += is_start(item[_ITEM_HEAD_BYTES:][:length])
        place += _ITEM_HEAD_BYTES + length
    return starts


def _end_of_item(file: BinaryIO, begin: int) -> int:
    file.seek(begin + 4)
    return begin + _ITEM_HEAD_BYTES + int.from_bytes(file.read(4), "little")
