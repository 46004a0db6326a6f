"""The walk over the elements of one dataset or item (PS3.5 7.1 to 7.5 and A.4), without recursion.

Only the heads of elements are read. Time and memory depend on their number, not on their values.
"""

import struct
from collections.abc import Callable, Container
from dataclasses import dataclass

from services.dicom.byte_window import ByteWindow
from services.dicom.element_bytes import (
    LONG_VRS,
    SHORT_VRS,
    bytes_text,
    is_sequence_tag,
    tag_text,
)
from services.dicom.layout import Element, WalkLimits
from services.dicom.nesting import Nesting, OpenContainer
from services.errors import FileRejected

_SIMPLE_LONG_VRS = LONG_VRS - {b"SQ", b"UN"}
SIMPLE_VRS = SHORT_VRS | _SIMPLE_LONG_VRS
"""VRs of elements that may be simple."""
_UNDEFINED = 0xFFFFFFFF
_HEAD_BYTES = 8
_LONG_HEAD_BYTES = 12
_PIXEL_DATA_GROUP = 0x7FE0
"""Elements from here on are not simple: delimiters have group FFFE."""


class SimpleElements:
    """Runs over the heads of simple elements.

    Simple are elements with an explicit VR and a defined length that are no sequences: nearly all
    of a header. One loop without calls takes 0.3 us for each of them.
    """

    def __init__(self, *, is_little_endian: bool) -> None:
        order = "<" if is_little_endian else ">"
        self._head = struct.Struct(f"{order}HH2sH")
        self._long_length = struct.Struct(f"{order}8xI")

    def run(
        self,
        content: bytes,
        at: int,
        *,
        reach: int,
        most: int,
        keep: Container[int],
        start: int = 0,
    ) -> tuple[int, int, list[Element]]:
        """Run from one element to the first that is not simple, or whose head is not in `content`.

        Args:
            content: A part of the file; places are indices of it.
            at: Where the first element begins.
            reach: Where the last one may end; it may be behind the content.
            most: How many there may be.
            keep: Tags whose places are wanted.
            start: Place of the content in the file; those of `kept` are counted from there.

        Returns:
            The end of the last element, the number of elements, and those whose tags are in `keep`;
            `at` and 0 when the first element is not simple.
        """
        unpack_head, unpack_length = self._head.unpack_from, self._long_length.unpack_from
        last, count, kept = len(content) - _LONG_HEAD_BYTES, 0, []
        while at <= last and count < most:
            group, element, vr, length = unpack_head(content, at)
            if vr in SHORT_VRS:
                head_bytes = _HEAD_BYTES
            elif vr in _SIMPLE_LONG_VRS:
                (length,) = unpack_length(content, at)
                head_bytes = _LONG_HEAD_BYTES
            else:
                break
            end = at + head_bytes + length
            if end > reach or group >= _PIXEL_DATA_GROUP or length == _UNDEFINED:
                break
            tag = group << 16 | element
            if tag in keep:
                begin = start + at
                kept.append(Element(tag, vr, begin, begin + head_bytes, start + end))
            at = end
            count += 1
        return at, count, kept


_ITEM_TAG = (0xFFFE, 0xE000)
_END = (0xFFFE, 0xE0DD)


@dataclass(frozen=True, slots=True)
class Fragments:
    """What the walk over encapsulated pixel data found (PS3.5 A.4).

    Attributes:
        end: Byte offset behind the delimiter.
        count: Fragments behind the basic offset table.
    """

    end: int
    count: int


def walk_fragments(
    window: ByteWindow, offset: int, head: struct.Struct, check: Callable[[int, int], None]
) -> Fragments:
    """Walk over encapsulated pixel data, from its first item to its delimiter.

    Args:
        window: The file.
        offset: Of the first item.
        head: Unpacks group, element and length of an item.
        check: Called with offset and length of each value; raises FileRejected for a bad one.

    Raises:
        FileRejected: TRUNCATED or MALFORMED, or from `check`.
    """
    lengths = 0
    while True:
        item = window.read_only(offset, _HEAD_BYTES)
        if len(item) < _HEAD_BYTES:
            message = "The file ends in the middle of its compressed pixel data."
            raise FileRejected("TRUNCATED", message)
        group, element, length = head.unpack(item)
        offset += _HEAD_BYTES
        if (group, element) == _END:
            return Fragments(offset, max(0, lengths - 1))
        if (group, element) != _ITEM_TAG or length == _UNDEFINED:
            message = "The compressed pixel data of this file is damaged."
            raise FileRejected("MALFORMED", message)
        check(offset, length)
        lengths += 1
        offset += length


_DELIMITER_GROUP = 0xFFFE
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""FloatPixelData, DoubleFloatPixelData, PixelData."""
_VR = slice(4, 6)
"""Place of an explicit VR in the head of an element (PS3.5 7.1.2)."""


class ElementWalk:
    """One walk over one dataset or item; its attributes hold the findings afterwards.

    Args:
        window: The file.
        is_implicit_vr: How the elements are encoded.
        is_little_endian: Their byte order.
        limits: What they may ask for.
        keep: Tags of elements whose places are kept.
        end: Offset of its end, None when it ends with the file or a delimiter.

    Attributes:
        kept: The elements in `keep`; those inside of sequences are not kept.
    """

    def __init__(
        self,
        window: ByteWindow,
        *,
        is_implicit_vr: bool,
        is_little_endian: bool,
        limits: WalkLimits,
        keep: Container[int] = (),
        end: int | None = None,
    ) -> None:
        self.kept: list[Element] = []
        self.pixel_data_offset: int | None = None
        self.pixel_data_length: int | None = None
        self.pixel_data_is_encapsulated = False
        self.fragment_count = 0
        self.element_count = 0
        self._top_level = OpenContainer(is_sequence=False, end=None)
        self._items = 0
        self._fragments_seen = 0
        self._window = window
        self._limits = limits
        self._keep = keep
        self._keeping: Element | None = None
        self._end = window.size if end is None else end
        order = "<" if is_little_endian else ">"
        self._implicit = struct.Struct(f"{order}HHI")
        self._explicit = struct.Struct(f"{order}HH2sH")
        self._length = struct.Struct(f"{order}I")
        self._item_end = struct.pack(f"{order}HH", _DELIMITER_GROUP, _ITEM_END)
        self._simple = SimpleElements(is_little_endian=is_little_endian)
        self._nesting = Nesting(
            file_size=self._end,
            is_implicit_vr=is_implicit_vr,
            sequence_max_depth=limits.sequence_max_depth,
        )

    @property
    def deepest_nesting(self) -> int:
        """Number of sequences around the deepest element."""
        return self._nesting.deepest

    def walk(self, offset: int, *, is_item: bool = False) -> int:
        """Walk from the first element on.

        Args:
            offset: Of that element.
            is_item: An item delimiter may end the walk.

        Returns:
            The offset behind the last element, which zero bytes may follow, or behind the
            delimiter.

        Raises:
            FileRejected: TRUNCATED, MALFORMED, NESTED_TOO_DEEP, TOO_MANY_ELEMENTS or
                TOO_MANY_ITEMS.
        """
        while True:
            self._close_at(offset)
            head = self._window.read(offset, _HEAD_BYTES)
            if self._nesting.top is None:
                if is_item and head[:4] == self._item_end and offset < self._end:
                    return offset + _HEAD_BYTES
                if offset == self._end or self._is_finished(head, offset):
                    return offset
            if len(head) < _HEAD_BYTES:
                raise FileRejected("TRUNCATED", self._nesting.ends_within())
            if head[_VR] in SIMPLE_VRS and (end := self._end_of_simple_elements(offset)) > offset:
                offset = end
                continue
            self._count()
            group, element, length = self._implicit.unpack(head)
            if group == _DELIMITER_GROUP:
                offset = self._delimiter(element, length, offset)
            else:
                offset = self._element(head, offset)

    def _close_at(self, offset: int) -> None:
        nesting = self._nesting
        while nesting.top is not None and nesting.top.end == offset:
            nesting.close()
        if self._keeping is not None and nesting.top is None:
            self.kept.append(self._keeping._replace(end=offset))
            self._keeping = None

    def _end_of_simple_elements(self, offset: int) -> int:
        top = self._nesting.top
        is_sequence = top is not None and top.is_sequence
        if is_sequence or self._nesting.is_implicit_vr:
            return offset
        content, at = self._window.view(offset)
        start = offset - at
        dataset = top or self._top_level
        end, count, kept = self._simple.run(
            content,
            at,
            reach=self._nesting.reach() - start,
            most=min(
                self._limits.header_max_elements - self.element_count,
                self._limits.dataset_max_elements - dataset.children,
            ),
            keep=self._keep if top is None else (),
            start=start,
        )
        self.element_count += count
        dataset.children += count
        self.kept += kept
        return start + end

    def _is_finished(self, head: bytes, offset: int) -> bool:
        if not head:
            return True
        if head[:4] != b"\0\0\0\0"[: len(head)] or not self._window.is_zero_from(offset):
            if len(head) < _HEAD_BYTES and self.pixel_data_offset is None:
                raise FileRejected("TRUNCATED", self._nesting.ends_within())
            if len(head) < _HEAD_BYTES:
                # Pixel data is nearly always the last element, and it is complete here.
                message = f"{bytes_text(len(head))} follow the last element and are no element."
                raise FileRejected("MALFORMED", message)
            return False
        return True

    def _count(self) -> None:
        self.element_count += 1
        if self.element_count > self._limits.header_max_elements:
            message = f"The file has more than {self._limits.header_max_elements:,} elements."
            raise FileRejected("TOO_MANY_ELEMENTS", message)

    def _count_element(self) -> None:
        dataset = self._nesting.top or self._top_level
        dataset.children += 1
        if dataset.children > self._limits.dataset_max_elements:
            where = "The file" if self._nesting.top is None else "An item of this file"
            message = f"{where} has more than {self._limits.dataset_max_elements:,} elements."
            raise FileRejected("TOO_MANY_ELEMENTS", message)

    def _count_item(self, sequence: OpenContainer) -> None:
        sequence.children += 1
        self._items += 1
        if sequence.children > self._limits.sequence_max_items:
            most, where = self._limits.sequence_max_items, "A sequence of this file"
        elif self._items > self._limits.header_max_items:
            most, where = self._limits.header_max_items, "The header of this file"
        else:
            return
        raise FileRejected("TOO_MANY_ITEMS", f"{where} has more than {most:,} items.")

    def _delimiter(self, element: int, length: int, offset: int) -> int:
        top = self._nesting.top
        offset += _HEAD_BYTES
        if element == _ITEM and top is not None and top.is_sequence:
            self._count_item(top)
            self._descend(offset, length, is_sequence=False, tag=(_DELIMITER_GROUP, _ITEM))
            return offset
        expected = _SEQUENCE_END if top is not None and top.is_sequence else _ITEM_END
        if top is None or top.end is not None or element != expected:
            message = f"The file has a stray {tag_text(_DELIMITER_GROUP, element)} in its header."
            raise FileRejected("MALFORMED", message)
        self._nesting.close()
        return offset

    def _element(self, head: bytes, offset: int) -> int:
        top = self._nesting.top
        if top is not None and top.is_sequence:
            message = "A sequence of this file holds something that is no item."
            raise FileRejected("MALFORMED", message)
        self._count_element()
        group, element, vr, value_offset, length = self._head(head, offset)
        tag = group << 16 | element
        is_undefined_length = length == _UNDEFINED
        is_encapsulated = is_undefined_length and vr in (b"OB", b"OW")
        is_sequence = not is_encapsulated and (
            is_undefined_length or self._is_sequence(vr, tag, value_offset, length)
        )
        if top is None and tag in self._keep:
            self._keeping = Element(
                tag, vr, offset, value_offset, 0, is_sequence, is_undefined_length
            )
        if tag in _PIXEL_DATA and top is None:
            return self._pixel_data(tag, value_offset, length)
        if is_encapsulated:
            return self._fragments(value_offset).end
        if is_undefined_length and vr not in (b"SQ", b"UN", b""):
            message = f"Element {tag_text(group, element)} has no length."
            raise FileRejected("MALFORMED", message)
        if is_sequence:
            self._descend(value_offset, length, is_sequence=True, tag=(group, element), vr=vr)
            return value_offset
        self._nesting.check_end(value_offset, length, (group, element))
        return value_offset + length

    def _head(self, head: bytes, offset: int) -> tuple[int, int, bytes, int, int]:
        """Return group, element, VR (empty when implicit), offset and length of the value."""
        group, element, vr, length = self._explicit.unpack(head)
        if self._nesting.is_implicit_vr or not (vr.isalpha() and vr.isupper()):
            group, element, length = self._implicit.unpack(head)
            return group, element, b"", offset + _HEAD_BYTES, length
        if vr not in LONG_VRS:
            return group, element, vr, offset + _HEAD_BYTES, length
        long_head = self._window.read(offset, _LONG_HEAD_BYTES)
        if len(long_head) < _LONG_HEAD_BYTES:
            raise FileRejected("TRUNCATED", f"The file ends within {tag_text(group, element)}.")
        (length,) = self._length.unpack_from(long_head, _HEAD_BYTES)
        return group, element, vr, offset + _LONG_HEAD_BYTES, length

    def _is_sequence(self, vr: bytes, tag: int, offset: int, length: int) -> bool:
        """Tell whether a value of defined length is a sequence.

        With implicit VR the data dictionary decides. DCMTK also knows private sequences, so a
        private value that consists of items is a sequence here. So is a value of VR UN with the
        tag of a sequence (PS3.5 6.2.2 note 2).
        """
        if vr == b"UN" and is_sequence_tag(tag):
            end = offset + length
            return self._is_tiled_by_items(offset, end) and not self._has_vr(offset, end)
        if vr or length < _HEAD_BYTES:
            return vr == b"SQ"
        if not tag >> 16 & 1:
            return is_sequence_tag(tag)
        return self._is_tiled_by_items(offset, offset + length)

    def _has_vr(self, offset: int, end: int) -> bool:
        """Tell whether the first element of the first item has an explicit VR."""
        if end < offset + 2 * _HEAD_BYTES:
            return False
        vr = self._window.read(offset + _HEAD_BYTES, _HEAD_BYTES)[_VR]
        return vr.isalpha() and vr.isupper()

    def _is_tiled_by_items(self, offset: int, end: int) -> bool:
        while offset < end:
            head = self._window.read(offset, _HEAD_BYTES)
            if len(head) < _HEAD_BYTES:
                return False
            group, element, length = self._implicit.unpack(head)
            if (group, element) != (_DELIMITER_GROUP, _ITEM):
                return False
            if length == _UNDEFINED:
                return True
            self._count()
            offset += _HEAD_BYTES + length
        return offset == end

    def _descend(
        self, offset: int, length: int, *, is_sequence: bool, tag: tuple[int, int], vr: bytes = b""
    ) -> None:
        if length != _UNDEFINED:
            self._nesting.check_end(offset, length, tag)
        is_implicit_vr = self._nesting.is_implicit_vr or vr == b"UN"  # PS3.5 6.2.2 note 2
        end = None if length == _UNDEFINED else offset + length
        self._nesting.open(OpenContainer(is_sequence, end), is_implicit_vr=is_implicit_vr)

    def _pixel_data(self, tag: int, offset: int, length: int) -> int:
        self.pixel_data_offset = offset
        if not self._window.is_whole:
            return self._beginning_of_pixel_data(tag, offset, length)
        if length != _UNDEFINED:
            self._nesting.check_end(offset, length, (tag >> 16, tag & 0xFFFF))
            self.pixel_data_length = length
            self.pixel_data_is_encapsulated = False
            return offset + length
        self.pixel_data_is_encapsulated = True
        fragments = self._fragments(offset)
        self.fragment_count = fragments.count
        self.pixel_data_length = fragments.end - offset
        return fragments.end

    def _beginning_of_pixel_data(self, tag: int, offset: int, length: int) -> int:
        """Read the head of the pixel data when the rest of the file is not available."""
        self.pixel_data_is_encapsulated = length == _UNDEFINED
        if self.pixel_data_is_encapsulated:
            self.pixel_data_length = self._end - offset
        else:
            self._nesting.check_end(offset, length, (tag >> 16, tag & 0xFFFF))
            self.pixel_data_length = length
        return self._end

    def _fragments(self, offset: int) -> Fragments:
        return walk_fragments(self._window, offset, self._implicit, self._check_fragment)

    def _check_fragment(self, offset: int, length: int) -> None:
        self._fragments_seen += 1
        if self._fragments_seen > self._limits.max_fragments:
            message = f"The file has more than {self._limits.max_fragments:,} fragments."
            raise FileRejected("TOO_MANY_ITEMS", message)
        self._nesting.check_end(offset, length, (_DELIMITER_GROUP, _ITEM))
