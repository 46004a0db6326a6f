"""A run over plain elements: explicit VR, defined length, no items within. Most are like that.

What is unusual or wrong ends the run: the walk looks at it, and tells what is wrong with it.
"""

import struct
from collections.abc import Collection

from services.dicom.element_names import LONG_VRS, SHORT_VRS

_PLAIN_LONG_VRS = LONG_VRS - {b"SQ"}
PLAIN_VRS = SHORT_VRS | _PLAIN_LONG_VRS
"""VRs of elements that may be plain."""
_UNDEFINED = 0xFFFFFFFF
_HEAD_BYTES = 8
_LONG_HEAD_BYTES = 12
_PIXEL_DATA_GROUP = 0x7FE0
"""Nothing behind it is plain: delimiters have group FFFE."""


class PlainElements:
    """Runs over the heads of elements, one loop without calls: 0.3 us for each."""

    def __init__(self, *, is_little_endian: bool) -> None:
        order = "<" if is_little_endian else ">"
        self._head = struct.Struct(f"{order}HH2sH")
        self._long_length = struct.Struct(f"{order}8xI")

    def run(
        self, content: bytes, at: int, *, reach: int, most: int, keep: Collection[int]
    ) -> tuple[int, int, list[tuple[int, int, int]]]:
        """Run from one element to the first that is not plain, or whose head is not at hand.

        Args:
            content: A part of the file; places are indices of it.
            at: Where the first element begins.
            reach: Where the last one may end; it may be behind the content.
            most: How many there may be.
            keep: Tags whose places are wanted.

        Returns:
            The end of the last element, the number of elements, and tag, begin and end of those
            that are in `keep`; `at` and 0 when the first element is not plain.
        """
        unpack_head, unpack_length = self._head.unpack_from, self._long_length.unpack_from
        last, count, kept = len(content) - _LONG_HEAD_BYTES, 0, []
        while at <= last and count < most:
            group, element, vr, length = unpack_head(content, at)
            if vr in SHORT_VRS:
                end = at + _HEAD_BYTES + length
            elif vr in _PLAIN_LONG_VRS:
                (length,) = unpack_length(content, at)
                end = at + _LONG_HEAD_BYTES + length
            else:
                break
            if end > reach or group >= _PIXEL_DATA_GROUP or length == _UNDEFINED:
                break
            tag = group << 16 | element
            if tag in keep:
                kept.append((tag, at, end))
            at = end
            count += 1
        return at, count, kept
