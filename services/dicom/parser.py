"""A bounds-checking walk over every element of a DICOM file (PS3.5 7, PS3.10 7), without recursion.

Orthanc's parser dies of lengths past the end and of deep nesting, so nothing reaches it that was
not walked to the end here. Values are skipped, never read: time and memory do not depend on them.
"""

import struct
from collections.abc import Callable, Container
from dataclasses import dataclass, replace
from typing import BinaryIO, NoReturn

from services.dicom.deflation import inflated_copy
from services.dicom.element_bytes import (
    LONG_VRS,
    SHORT_VRS,
    bytes_text,
    bytes_texts,
    is_sequence_tag,
    tag_text,
)
from services.dicom.layout import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Element,
    FileLayout,
    WalkLimits,
)
from services.errors import FileRejected

_PLAIN_LONG_VRS = LONG_VRS - {b"SQ", b"UN"}
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
        self, content: bytes, at: int, *, reach: int, most: int, keep: Container[int]
    ) -> tuple[int, int, list[Element]]:
        """Run from one element to the first that is not plain, or whose head is not at hand.

        Args:
            content: A part of the file; places are indices of it.
            at: Where the first element begins.
            reach: Where the last one may end; it may be behind the content.
            most: How many there may be.
            keep: Tags whose places are wanted.

        Returns:
            The end of the last element, the number of elements, and those whose tags are in `keep`;
            `at` and 0 when the first element is not plain.
        """
        unpack_head, unpack_length = self._head.unpack_from, self._long_length.unpack_from
        last, count, kept = len(content) - _LONG_HEAD_BYTES, 0, []
        while at <= last and count < most:
            group, element, vr, length = unpack_head(content, at)
            if vr in SHORT_VRS:
                head_bytes = _HEAD_BYTES
            elif vr in _PLAIN_LONG_VRS:
                (length,) = unpack_length(content, at)
                head_bytes = _LONG_HEAD_BYTES
            else:
                break
            end = at + head_bytes + length
            if end > reach or group >= _PIXEL_DATA_GROUP or length == _UNDEFINED:
                break
            tag = group << 16 | element
            if tag in keep:
                kept.append(Element(tag, vr, at, at + head_bytes, end))
            at = end
            count += 1
        return at, count, kept


@dataclass(slots=True)
class _OpenContainer:
    """A sequence or an item that is open; `end` is None when a delimiter tells it."""

    is_sequence: bool
    end: int | None
    children: int = 0
    """Items of a sequence, or elements of an item, so far."""


class Nesting:
    """What is open, and how far the elements in it may reach.

    Attributes:
        top: The innermost of what is open, None at the top level of the dataset.
        is_implicit_vr: How the elements in it are encoded.
        deepest: Sequences around the deepest element so far.
    """

    def __init__(self, *, file_size: int, is_implicit_vr: bool, sequence_max_depth: int) -> None:
        self.top: _OpenContainer | None = None
        self.deepest = 0
        self._file_size = file_size
        self.is_implicit_vr = is_implicit_vr
        self._sequence_max_depth = sequence_max_depth
        self._outer: list[tuple[_OpenContainer | None, bool]] = []
        self._depth = 0

    def open(self, container: _OpenContainer, *, is_implicit_vr: bool) -> None:
        """Enter a sequence or an item.

        Raises:
            FileRejected: NESTED_TOO_DEEP.
        """
        if container.is_sequence:
            self._depth += 1
            self.deepest = max(self.deepest, self._depth)
            if self._depth > self._sequence_max_depth:
                message = (
                    f"The sequences of this file are nested deeper than "
                    f"{self._sequence_max_depth} levels."
                )
                raise FileRejected("NESTED_TOO_DEEP", message)
        self._outer.append((self.top, self.is_implicit_vr))
        self.top, self.is_implicit_vr = container, is_implicit_vr

    def close(self) -> None:
        """Leave the innermost sequence or item."""
        if self.top is not None:
            self._depth -= self.top.is_sequence
            self.top, self.is_implicit_vr = self._outer.pop()

    def reach(self) -> int:
        """Return the offset that no value may pass, the end of the item around it or the file's."""
        return self._file_size if self.top is None or self.top.end is None else self.top.end

    def check_end(self, offset: int, length: int, tag: tuple[int, int]) -> None:
        """Check that a value ends within the file and within the item around it.

        Raises:
            FileRejected: TRUNCATED or MALFORMED.
        """
        end = offset + length
        if end > self._file_size:
            self._too_short(offset, length, tag)
        inner = self.top.end if self.top is not None else None
        if inner is not None and end > inner:
            message = f"Element {tag_text(*tag)} is longer than the item around it."
            raise FileRejected("MALFORMED", message)

    def _too_short(self, offset: int, length: int, tag: tuple[int, int]) -> NoReturn:
        announced, present = bytes_texts(length, max(0, self._file_size - offset))
        message = (
            f"The file ends in the middle of element {tag_text(*tag)}: {announced} were announced, "
            f"{present} are there."
        )
        raise FileRejected("TRUNCATED", message)

    def ends_within(self) -> str:
        """Tell in a sentence what a file that ends here cuts in two."""
        if self.top is None:
            return "The file was cut off: it ends within the head of an element."
        kind = "sequence" if self.top.is_sequence else "item of a sequence"
        return f"The file ends in the middle of a {kind}."


_WINDOW_BYTES = 16 * 1024
"""Headers are a few kB: one read shows most of them, and little of the pixel data."""

_SEARCHED_BYTES = 64 * 1024


class ByteWindow:
    """A seekable file seen through a window of 16 kB, so that small reads cost no system call."""

    def __init__(self, file: BinaryIO, size: int | None = None) -> None:
        """Open the window.

        Args:
            file: The file, or its beginning.
            size: Of the whole file, in bytes; None when it is at hand.
        """
        self._file = file
        self._start = 0
        self._bytes = b""
        self._zeros_from: int | None = None
        self.is_whole = size is None
        self.size = file.seek(0, 2) if size is None else size

    def read(self, offset: int, length: int) -> bytes:
        """Return bytes; fewer than `length` only at the end of the file."""
        begin = offset - self._start
        if begin < 0 or begin + length > len(self._bytes):
            self._file.seek(offset)
            self._bytes = self._file.read(max(length, _WINDOW_BYTES))
            self._start, begin = offset, 0
        return self._bytes[begin : begin + length]

    def at_hand(self, offset: int) -> tuple[bytes, int]:
        """Return the bytes of the window and the index in them of an offset that was read last."""
        return self._bytes, offset - self._start

    def read_only(self, offset: int, length: int) -> bytes:
        """Return bytes without looking ahead: what follows is pixel data."""
        self._file.seek(offset)
        return self._file.read(length)

    def is_zero_from(self, offset: int) -> bool:
        """Tell whether nothing but zero bytes follows; the file is searched once, from its end."""
        if self._zeros_from is None:
            self._zeros_from = self._trailing_zeros()
        return offset >= self._zeros_from

    def _trailing_zeros(self) -> int:
        """Return where the zero bytes at the end of the file begin."""
        end = self.size
        while end:
            start = max(0, end - _SEARCHED_BYTES)
            self._file.seek(start)
            rest = self._file.read(end - start).rstrip(b"\0")
            if rest:
                return start + len(rest)
            end = start
        return 0


_PREAMBLE_BYTES = 128
_MAGIC = b"DICM"
_TRANSFER_SYNTAX_ELEMENT = 0x0010
_MAX_ELEMENTS = 1000
"""PS3.10 defines 14."""
_FIRST_TAGS = (b"\x08\x00", b"\x00\x08")
"""Group 0008 in both byte orders: where a dataset without meta header begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaHeader:
    """Where the dataset begins and how it is said to be encoded.

    Attributes:
        transfer_syntax_uid: None when the file does not say.
        meta_offset: None without a meta header.
    """

    has_preamble: bool
    meta_offset: int | None
    dataset_offset: int
    transfer_syntax_uid: str | None


def read_meta_header(window: ByteWindow) -> MetaHeader:
    """Read preamble and meta header, or find that the file begins with group 0002 or 0008.

    FileMetaInformationGroupLength is checked against the file and otherwise ignored: DCMTK and
    pydicom find the end of the meta header by its group number too.

    Raises:
        FileRejected: NOT_DICOM, TRUNCATED, MALFORMED or UNSUPPORTED_TRANSFER_SYNTAX.
    """
    head = window.read(0, _PREAMBLE_BYTES + len(_MAGIC))
    has_preamble = head[_PREAMBLE_BYTES:] == _MAGIC
    start = len(head) if has_preamble else 0
    group = window.read(start, 2)
    if group != b"\x02\x00":
        if not has_preamble and group not in _FIRST_TAGS:
            raise FileRejected("NOT_DICOM", "This is not a DICOM file.")
        return MetaHeader(
            has_preamble=has_preamble,
            meta_offset=None,
            dataset_offset=start,
            transfer_syntax_uid=None,
        )
    dataset_offset, transfer_syntax_uid = _walk_meta(window, start)
    return MetaHeader(
        has_preamble=has_preamble,
        meta_offset=start,
        dataset_offset=dataset_offset,
        transfer_syntax_uid=transfer_syntax_uid,
    )


def _walk_meta(window: ByteWindow, offset: int) -> tuple[int, str | None]:
    transfer_syntax_uid = None
    for _ in range(_MAX_ELEMENTS):
        if window.read(offset, 2) != b"\x02\x00":
            return offset, transfer_syntax_uid
        element, value_offset, length = _meta_element(window, offset)
        if element == _TRANSFER_SYNTAX_ELEMENT:
            transfer_syntax_uid = _uid(window.read(value_offset, min(length, 66)))
        offset = value_offset + length
    raise FileRejected("MALFORMED", "The meta header of this file has far too many elements.")


def _meta_element(window: ByteWindow, offset: int) -> tuple[int, int, int]:
    head = window.read(offset, 12)
    if len(head) < 8:  # noqa: PLR2004 - tag, VR and length
        raise FileRejected("TRUNCATED", "The file ends in the middle of its meta header.")
    _, element, vr, length = struct.unpack_from("<HH2sH", head)
    value_offset = offset + 8
    if vr in LONG_VRS and len(head) == 12:  # noqa: PLR2004 - PS3.5 7.1.2
        length, value_offset = int.from_bytes(head[8:], "little"), offset + 12
    if not vr.isalpha():
        raise FileRejected("MALFORMED", "The meta header of this file is damaged.")
    announced = length
    if element == 0 and length == 4:  # noqa: PLR2004 - FileMetaInformationGroupLength, UL
        announced += int.from_bytes(window.read(value_offset, 4), "little")
    if value_offset + announced > window.size:
        wanted, present = bytes_texts(announced, max(0, window.size - value_offset))
        message = (
            f"The file ends in the middle of its meta header {tag_text(2, element)}: "
            f"{wanted} were announced, {present} are there."
        )
        raise FileRejected("TRUNCATED", message)
    return element, value_offset, length


def _uid(value: bytes) -> str | None:
    uid = value.rstrip(b"\0 ").strip()
    if not uid:
        return None
    if len(uid) > 64 or not set(uid) <= set(b"0123456789."):  # noqa: PLR2004 - PS3.5 9.1
        message = "The transfer syntax of this file is no valid UID."
        raise FileRejected("UNSUPPORTED_TRANSFER_SYNTAX", message)
    return uid.decode("ascii")


_ITEM_TAG = (0xFFFE, 0xE000)
_END = (0xFFFE, 0xE0DD)
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
        if (group, element) != _ITEM_TAG or length == _UNDEFINED:
            message = "The compressed pixel data of this file is damaged."
            raise FileRejected("MALFORMED", message)
        check(offset, length)
        if lengths == 0:
            table_bytes = length
        lengths += 1
        offset += length


_DELIMITER_GROUP = 0xFFFE
_ITEM, _ITEM_END, _SEQUENCE_END = 0xE000, 0xE00D, 0xE0DD
_PIXEL_DATA = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})
"""FloatPixelData, DoubleFloatPixelData, PixelData."""
_VR = slice(4, 6)
"""Where an element's VR is when it is explicit."""


class ElementWalk:
    """One walk over one dataset or item; what it found is in its attributes afterwards.

    Args:
        window: The file.
        is_implicit_vr: How the elements are encoded.
        is_little_endian: Their byte order.
        limits: What they may ask for.
        keep: Tags of elements whose places are wanted.
        end: Where the dataset or item ends, None when it ends with the file or a delimiter.

    Attributes:
        kept: Those elements, without what is inside their sequences.
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
        self.offset_table_entries = 0
        self.element_count = 0
        self._top_level = _OpenContainer(is_sequence=False, end=None)
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
        self._plain = PlainElements(is_little_endian=is_little_endian)
        self._nesting = Nesting(
            file_size=self._end,
            is_implicit_vr=is_implicit_vr,
            sequence_max_depth=limits.sequence_max_depth,
        )

    @property
    def deepest_nesting(self) -> int:
        """Sequences around the deepest element."""
        return self._nesting.deepest

    def walk(self, offset: int, *, is_item: bool = False) -> int:
        """Walk from the first element on.

        Args:
            offset: Of that element.
            is_item: A delimiter may end what is walked over.

        Returns:
            The end of the last element; behind it are zero bytes or nothing. The end of the
            delimiter, where there is one.

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
            self.kept.append(self._keeping._replace(end=offset))
            self._keeping = None

    def _end_of_plain_elements(self, offset: int) -> int:
        top = self._nesting.top
        is_sequence = top is not None and top.is_sequence
        if is_sequence or self._nesting.is_implicit_vr:
            return offset
        content, at = self._window.at_hand(offset)
        start = offset - at
        dataset = top or self._top_level
        end, count, kept = self._plain.run(
            content,
            at,
            reach=self._nesting.reach() - start,
            most=min(
                self._limits.header_max_elements - self.element_count,
                self._limits.dataset_max_elements - dataset.children,
            ),
            keep=self._keep if top is None else (),
        )
        self.element_count += count
        dataset.children += count
        self.kept += [
            element._replace(
                begin=start + element.begin,
                value_begin=start + element.value_begin,
                end=start + element.end,
            )
            for element in kept
        ]
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

    def _count_item(self, sequence: _OpenContainer) -> None:
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

        Implicit VR leaves that to dictionaries, and DCMTK's knows private sequences: a value that
        begins like one and is tiled by its items counts as one. So does one of VR UN whose tag is
        that of a sequence (PS3.5 6.2.2 note 2).
        """
        if vr == b"UN" and is_sequence_tag(tag):
            return self._is_tiled_by_items(offset, offset + length) and not self._has_vr(offset)
        if vr or length < _HEAD_BYTES:
            return vr == b"SQ"
        if not tag >> 16 & 1:
            return is_sequence_tag(tag)
        return self._is_tiled_by_items(offset, offset + length)

    def _has_vr(self, offset: int) -> bool:
        """Tell whether a VR stands in the first element of the first item."""
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
        self._nesting.open(_OpenContainer(is_sequence, end), is_implicit_vr=is_implicit_vr)

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
        self.offset_table_entries = fragments.offset_table_entries
        self.pixel_data_length = fragments.end - offset
        return fragments.end

    def _beginning_of_pixel_data(self, tag: int, offset: int, length: int) -> int:
        """Read what the head of the pixel data says; the rest of the file is not at hand."""
        self.pixel_data_is_encapsulated = length == _UNDEFINED
        if self.pixel_data_is_encapsulated:
            self.pixel_data_length = self._end - offset
            table = self._window.read(offset, _HEAD_BYTES)
            if len(table) == _HEAD_BYTES:
                self.offset_table_entries = self._implicit.unpack(table)[2] // _OFFSET_BYTES
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


_UNREADABLE_SYNTAXES = frozenset({"1.2.840.113619.5.2", "1.2.840.10008.1.2.4.95"})
"""GE's private mixed byte order and deflated JPIP references: Orthanc refuses both."""


def walk(
    file: BinaryIO,
    limits: WalkLimits | None = None,
    *,
    keep: Container[int] = (),
    file_size: int | None = None,
) -> FileLayout:
    """Walk over a file and prove its structure.

    Accepts what Orthanc accepts: files without preamble, without meta header, of unknown transfer
    syntaxes (read as Explicit VR Little Endian), odd lengths, unknown VRs. Zero bytes behind the
    last element are accepted as well; `rewriting.prepare` leaves them out.

    Args:
        file: Seekable and binary; its position does not matter and is not kept.
        limits: What the file may ask for.
        keep: Tags of the top level; `FileLayout.kept` tells where their elements are.
        file_size: Of the whole file, in bytes, when `file` is only its beginning, with the head of
            its pixel data: the walk ends there.

    Raises:
        FileRejected: EMPTY_FILE, NOT_DICOM, TRUNCATED, MALFORMED, NESTED_TOO_DEEP,
            TOO_MANY_ELEMENTS, TOO_MANY_ITEMS, INFLATES_TOO_FAR or UNSUPPORTED_TRANSFER_SYNTAX.
    """
    limits = limits or WalkLimits()
    window = ByteWindow(file, file_size)
    if window.size == 0:
        raise FileRejected("EMPTY_FILE", "The file is empty.")
    meta = read_meta_header(window)
    if meta.transfer_syntax_uid in _UNREADABLE_SYNTAXES:
        message = f"Transfer syntax {meta.transfer_syntax_uid} is not supported."
        raise FileRejected("UNSUPPORTED_TRANSFER_SYNTAX", message)
    if meta.transfer_syntax_uid != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return _walk_dataset(window, meta, limits, keep)
    with inflated_copy(file, meta.dataset_offset, limits) as inflated:
        layout = _walk_dataset(ByteWindow(inflated), meta, limits, keep)
    return replace(layout, is_deflated=True, file_size=window.size)


def _walk_dataset(
    window: ByteWindow, meta: MetaHeader, limits: WalkLimits, keep: Container[int]
) -> FileLayout:
    is_implicit_vr, is_little_endian = _encoding(window, meta)
    elements = ElementWalk(
        window,
        is_implicit_vr=is_implicit_vr,
        is_little_endian=is_little_endian,
        limits=limits,
        keep=keep,
    )
    end_offset = elements.walk(meta.dataset_offset)
    return FileLayout(
        transfer_syntax_uid=meta.transfer_syntax_uid
        or _transfer_syntax(is_implicit_vr=is_implicit_vr, is_little_endian=is_little_endian),
        is_implicit_vr=is_implicit_vr,
        is_little_endian=is_little_endian,
        is_deflated=False,
        has_preamble=meta.has_preamble,
        meta_offset=meta.meta_offset,
        dataset_offset=meta.dataset_offset,
        end_offset=end_offset,
        file_size=window.size,
        pixel_data_offset=elements.pixel_data_offset,
        pixel_data_length=elements.pixel_data_length,
        pixel_data_is_encapsulated=elements.pixel_data_is_encapsulated,
        fragment_count=elements.fragment_count,
        offset_table_entries=elements.offset_table_entries,
        deepest_nesting=elements.deepest_nesting,
        element_count=elements.element_count,
        is_whole=window.is_whole,
        kept=elements.kept,
    )


def _transfer_syntax(*, is_implicit_vr: bool, is_little_endian: bool) -> str:
    if is_implicit_vr:
        return IMPLICIT_VR_LITTLE_ENDIAN
    return EXPLICIT_VR_LITTLE_ENDIAN if is_little_endian else EXPLICIT_VR_BIG_ENDIAN


def _encoding(window: ByteWindow, meta: MetaHeader) -> tuple[bool, bool]:
    """Tell (implicit VR, little endian): by the first element when no meta header says.

    A file that contradicts itself is refused: Orthanc refuses it too.
    """
    first = window.read(meta.dataset_offset, 6)
    declared_implicit = meta.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    if len(first) < 6:  # noqa: PLR2004 - tag and VR; a file without dataset has neither
        return declared_implicit, meta.transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN
    has_vr = first[4:6].isalpha() and first[4:6].isupper()
    if meta.transfer_syntax_uid is None:
        little = int.from_bytes(first[:2], "little") <= int.from_bytes(first[:2], "big")
        return not has_vr, little or not has_vr
    if has_vr == declared_implicit:
        message = "The transfer syntax of this file says otherwise than its elements about VRs."
        raise FileRejected("MALFORMED", message)
    return not has_vr, meta.transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN
