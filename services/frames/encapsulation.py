"""Assigns fragments of encapsulated pixel data to frames (PS3.5 A.4); pure functions."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.encaps import parse_basic_offsets, parse_fragments

from services.dicom.fragments import ENDED_IMAGES, MARK_BYTES, is_start
from services.errors import FrameNotRenderable

_ITEM_HEAD_BYTES = 8

_END_OF_IMAGE = b"\xff\xd9"
"""EOI of JPEG and JPEG-LS (ISO/IEC 10918-1 B.1.1.3), EOC of JPEG 2000 (ISO/IEC 15444-1 A.4)."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """One fragment: its value from `begin` up to `end`, in bytes of the file.

    Attributes:
        offset: Of its item after the basic offset table, as in that table (PS3.5 A.4).
        mark: Its first bytes, at most 12.
    """

    offset: int
    begin: int
    end: int
    mark: bytes = b""


def read_fragments(file: BinaryIO, begin: int) -> tuple[list[int], list[Fragment]]:
    """Read the basic offset table and find the fragments after it; values are not read.

    Args:
        file: Seekable; its position is not kept.
        begin: First byte of the value of PixelData.

    Raises:
        FrameNotRenderable: The items can't be read.
    """
    file.seek(begin)
    try:
        table = parse_basic_offsets(file)
        first = file.tell()
        _, items = parse_fragments(file)
    except (ValueError, EOFError) as exc:
        raise FrameNotRenderable(
            "The fragments of its pixel data can't be read.", detail=str(exc)
        ) from exc
    fragments = []
    for item in items:
        file.seek(item + 4)
        length = int.from_bytes(file.read(4), "little")
        at = item + _ITEM_HEAD_BYTES
        fragments.append(
            Fragment(item - first, at, at + length, file.read(min(length, MARK_BYTES)))
        )
    return table, fragments


def group_fragments(
    fragments: Sequence[Fragment], table: Sequence[int], frames: int
) -> list[Sequence[Fragment]]:
    """Assign fragments to frames.

    A table is used only if it matches the fragments: every offset must be that of a fragment that
    begins an image.

    Args:
        fragments: All fragments in their order.
        table: The basic offset table; empty if the file has none.
        frames: Number of frames.

    Returns:
        The fragments of each frame.

    Raises:
        FrameNotRenderable: The frames can't be separated.
    """
    if frames == 1:
        return [fragments]
    if len(fragments) == frames:
        return [[fragment] for fragment in fragments]
    starts = _starts_of_table(fragments, table, frames)
    if starts is None:
        starts = [place for place, one in enumerate(fragments) if is_start(one.mark)]
        if len(starts) < frames or starts[0] != 0:
            raise FrameNotRenderable("The frames in its pixel data can't be separated.")
    ends = [*starts[1:], len(fragments)]
    return [fragments[start:end] for start, end in zip(starts, ends, strict=True)][:frames]


def _starts_of_table(
    fragments: Sequence[Fragment], table: Sequence[int], frames: int
) -> list[int] | None:
    """Return the first fragment of each frame; None if the table is absent or wrong."""
    if len(table) != frames or table[0] != 0 or any(a >= b for a, b in zip(table, table[1:])):  # noqa: B905, RUF007  # neighbours
        return None
    offsets = [fragment.offset for fragment in fragments]
    starts = [bisect_left(offsets, offset) for offset in table]
    agrees = all(
        place < len(offsets) and offsets[place] == offset and is_start(fragments[place].mark)
        for place, offset in zip(starts, table, strict=True)
    )
    return starts if agrees else None


def is_complete(frame: bytes) -> bool:
    """Return whether bytes look like one whole encoded image, from its first marker to its last."""
    if not is_start(frame[:MARK_BYTES]):
        return False
    return not frame.startswith(ENDED_IMAGES) or frame.rstrip(b"\0").endswith(_END_OF_IMAGE)
