"""The loop of the walk: elements, items and fragments of one dataset (PS3.5 7.5, A.4)."""

import struct
from collections.abc import Collection

from services.dicom.byte_window import ByteWindow
from services.dicom.element_names import LONG_VRS, bytes_text, is_sequence_tag, tag_text
from services.dicom.fragments import Fragments, walk_fragments
from services.dicom.layout import WalkLimits
from services.dicom.nesting import Container, Nesting
from services.dicom.plain_elements import PLAIN_VRS, PlainElements
from services.errors import FileRejected

_UNDEFINED = 0xFFFFFFFF
_DELIMITER_GROUP = 0xFFFE
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""FloatPixelData, DoubleFloatPixelData, PixelData."""
_HEAD_BYTES = 8
_LONG_HEAD_BYTES = 12
_VR = slice(4, 6)
"""Where an element's VR is when it is explicit."""


class ElementWalk:
    """One walk over one dataset; what it found stands in its attributes afterwards.

    Tag and offset of every element of the top level are appended to `index`, when it is given;
    begin and end of those whose tags are in `keep` stand in `kept`.
    """

    def __init__(
        self,
        window: ByteWindow,
        *,
        is_implicit_vr: bool,
        is_little_endian: bool,
        limits: WalkLimits,
        index: list[tuple[int, int]] | None = None,
        keep: Collection[int] = (),
    ) -> None:
        self.kept: dict[int, tuple[int, int]] = {}
        self.pixel_data_offset: int | None = None
        self.pixel_data_length: int | None = None
        self.pixel_data_is_encapsulated = False
        self.fragment_count = 0
        self.offset_table_entries = 0
        self.element_count = 0
        self._window = window
        self._limits = limits
        self._index = index
        self._keep = keep
        self._keeping: tuple[int, int] | None = None
        order = "<" if is_little_endian else ">"
        self._implicit = struct.Struct(f"{order}HHI")
        self._explicit = struct.Struct(f"{order}HH2sH")
        self._length = struct.Struct(f"{order}I")
        self._plain = PlainElements(is_little_endian=is_little_endian)
        self._nesting = Nesting(
            file_size=window.size,
            is_implicit_vr=is_implicit_vr,
            sequence_max_depth=limits.sequence_max_depth,
        )

    @property
    def deepest_nesting(self) -> int:
        """Sequences around the deepest element."""
        return self._nesting.deepest

    def walk(self, offset: int) -> int:
        """Walk from the first element on.

        Returns:
            The end of the last element; behind it are zero bytes or nothing.

        Raises:
            FileRejected: TRUNCATED, MALFORMED, NESTED_TOO_DEEP or TOO_MANY_ELEMENTS.
        """
        while True:
            self._close_at(offset)
            head = self._window.read(offset, _HEAD_BYTES)
            if self._nesting.top is None and self._is_finished(head, offset):
                return offset
            if len(head) < _HEAD_BYTES:
                raise FileRejected("TRUNCATED", self._nesting.ends_within())
            if head[_VR] in PLAIN_VRS and (end := self._end_of_plain_elements(offset)) > offset:
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
            tag, begin = self._keeping
            self.kept[tag] = begin, offset
            self._keeping = None

    def _end_of_plain_elements(self, offset: int) -> int:
        top = self._nesting.top
        is_sequence = top is not None and top.is_sequence
        if is_sequence or self._nesting.is_implicit_vr or self._index is not None:
            return offset
        content, at = self._window.at_hand(offset)
        start = offset - at
        end, count, kept = self._plain.run(
            content,
            at,
            reach=self._nesting.reach() - start,
            most=self._limits.max_elements - self.element_count,
            keep=self._keep if top is None else (),
        )
        self.element_count += count
        for tag, begin, to in kept:
            self.kept[tag] = start + begin, start + to
        return start + end

    def _is_finished(self, head: bytes, offset: int) -> bool:
        if not head:
            return True
        if head[:4] != b"\0\0\0\0"[: len(head)] or not self._window.is_zero_from(offset):
            if len(head) < _HEAD_BYTES and self.pixel_data_offset is None:
                raise FileRejected("TRUNCATED", self._nesting.ends_within())
            if len(head) < _HEAD_BYTES:
                # Pixel data, which are whole here, are nearly always the last element.
                message = f"{bytes_text(len(head))} follow the last element and are none."
                raise FileRejected("MALFORMED", message)
            return False
        return True

    def _count(self) -> None:
        self.element_count += 1
        if self.element_count > self._limits.max_elements:
            message = f"The file has more than {self._limits.max_elements:,} elements."
            raise FileRejected("TOO_MANY_ELEMENTS", message)

    def _delimiter(self, element: int, length: int, offset: int) -> int:
        top = self._nesting.top
        offset += _HEAD_BYTES
        if element == _ITEM and top is not None and top.is_sequence:
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
        group, element, vr, value_offset, length = self._head(head, offset)
        tag = group << 16 | element
        if top is None:
            if tag in self._keep:
                self._keeping = tag, offset
            if self._index is not None:
                self._index.append((tag, offset))
        if tag in _PIXEL_DATA and top is None:
            return self._pixel_data(tag, value_offset, length)
        if length == _UNDEFINED and vr in (b"OB", b"OW"):
            return self._fragments(value_offset).end
        if length == _UNDEFINED and vr not in (b"SQ", b"UN", b""):
            message = f"Element {tag_text(group, element)} has no length."
            raise FileRejected("MALFORMED", message)
        if length == _UNDEFINED or self._is_sequence(vr, tag, value_offset, length):
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

        Implicit VR leaves that to dictionaries, and DCMTK's knows private sequences: a value that
        begins like one and is tiled by its items counts as one.
        """
        if vr or length < _HEAD_BYTES:
            return vr == b"SQ"
        if not tag >> 16 & 1:
            return is_sequence_tag(tag)
        return self._is_tiled_by_items(offset, offset + length)

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
        self._nesting.open(Container(is_sequence, end), is_implicit_vr=is_implicit_vr)

    def _pixel_data(self, tag: int, offset: int, length: int) -> int:
        self.pixel_data_offset = offset
        if length != _UNDEFINED:
            self._nesting.check_end(offset, length, (tag >> 16, tag & 0xFFFF))
            self.pixel_data_length = length
            self.pixel_data_is_encapsulated = False
            return offset + length
        self.pixel_data_is_encapsulated = True
        fragments = self._fragments(offset)
        self.fragment_count = fragments.count
        self.offset_table_entries = fragments.offset_table_entries
        self.pixel_data_length = fragments.end - offset
        return fragments.end

    def _fragments(self, offset: int) -> Fragments:
        return walk_fragments(self._window, offset, self._implicit, self._check_fragment)

    def _check_fragment(self, offset: int, length: int) -> None:
        self._count()
        self._nesting.check_end(offset, length, (_DELIMITER_GROUP, _ITEM))
