"""pydicom's view of a whole header without its long binary values, which are never read.

pydicom can leave values of the top level out, but reads sequences whole, with the waveforms,
surfaces and thumbnails in them. So sequences are read here, item by item (PS3.5 7.5).
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from services.dicom.layout import FileLayout
from services.dicom.pydicom_reading import header_stream
from services.errors import FileRejected

BULK_VRS = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
"""Binary values (PS3.5 6.2), and those that nobody knows."""

_LONG_BYTES = 64 * 1024

_PIXEL_DATA_GROUP = 0x7FE0
_UNDEFINED = 0xFFFFFFFF
_ITEM = 0xFFFEE000
_VR = slice(4, 6)
"""Where an element's VR is when it is explicit."""


def skim_header(file: BinaryIO, layout: FileLayout) -> Dataset:
    """Read what stands before group 7FE0; elements of bulk VRs over 64 KiB have no value.

    Args:
        file: The file, or its inflated copy; its position is not kept.
        layout: What `walk` said about it.

    Raises:
        FileRejected: MALFORMED when pydicom can't read what the walk could.
    """
    try:
        stream = header_stream(file, layout)
        skimming = _Skimming(stream, is_little_endian=layout.is_little_endian)
        is_implicit_vr = skimming.finds_implicit_vr(expected=layout.is_implicit_vr)
        return skimming.dataset(None, is_implicit_vr=is_implicit_vr, is_top_level=True)
    except Exception as exc:  # pydicom raises whatever the bytes lead it to
        raise FileRejected("MALFORMED", "The header of this file can't be read.") from exc


@dataclass(frozen=True, slots=True)
class _OpenSequence:
    """A sequence whose value begins at `value_offset`; `length` in bytes, or undefined."""

    tag: BaseTag
    length: int
    value_offset: int


class _Skimming:
    """Reads from the position of a stream on; the walk has proven how deep it goes."""

    def __init__(self, stream: BinaryIO, *, is_little_endian: bool) -> None:
        self._stream = stream
        self._is_little_endian = is_little_endian
        self._head = struct.Struct("<HHI" if is_little_endian else ">HHI")

    def finds_implicit_vr(self, *, expected: bool) -> bool:
        """Look whether two capitals stand where a VR would be; `expected` at the stream's end."""
        begin = self._stream.tell()
        letters = self._stream.read(_VR.stop)[_VR]
        self._stream.seek(begin)
        # A single capital is the length of a value, such as 76 bytes.
        return not (letters.isalpha() and letters.isupper()) if letters else expected

    def dataset(
        self, end: int | None, *, is_implicit_vr: bool, is_top_level: bool = False
    ) -> Dataset:
        """Read elements up to `end`, to an item delimiter, or to the pixel data."""
        elements: dict[BaseTag, DataElement | RawDataElement] = {}
        met: list[_OpenSequence] = []

        def stops(tag: BaseTag, vr: str | None, length: int) -> bool:
            if is_top_level and tag.group >= _PIXEL_DATA_GROUP:
                return True
            if length > _LONG_BYTES and _is_sequence(tag, vr, length):
                met.append(_OpenSequence(tag, length, self._stream.tell()))
            return bool(met)

        while end is None or self._stream.tell() < end:
            for element in self._elements(stops, is_implicit_vr=is_implicit_vr):
                elements[element.tag] = element
                if end is not None and self._stream.tell() >= end:
                    break
            if not met:
                break
            opened = met.pop()
            elements[opened.tag] = self._sequence(opened, is_implicit_vr=is_implicit_vr)
        return Dataset(elements)

    def _elements(
        self, stops: Callable[[BaseTag, str | None, int], bool], *, is_implicit_vr: bool
    ) -> Iterator[DataElement | RawDataElement]:
        for element in data_element_generator(
            self._stream, is_implicit_vr, self._is_little_endian, stops, defer_size=_LONG_BYTES
        ):
            if isinstance(element, RawDataElement) and _is_worth_reading(element):
                self._stream.seek(element.value_tell)
                yield element._replace(value=self._stream.read(element.length))
            else:
                yield element

    def _sequence(self, opened: _OpenSequence, *, is_implicit_vr: bool) -> DataElement:
        self._stream.seek(opened.value_offset)
        is_undefined = opened.length == _UNDEFINED
        end = None if is_undefined else opened.value_offset + opened.length
        items = []
        while end is None or self._stream.tell() < end:
            group, element, length = self._head.unpack(self._stream.read(self._head.size))
            if (group << 16 | element) != _ITEM:
                break
            items.append(self._item(length, is_implicit_vr=is_implicit_vr))
        return DataElement(opened.tag, "SQ", Sequence(items))

    def _item(self, length: int, *, is_implicit_vr: bool) -> Dataset:
        end = None if length == _UNDEFINED else self._stream.tell() + length
        # Sequences of unknown VR are implicit in an explicit dataset (PS3.5 6.2.2 note 2).
        is_implicit = is_implicit_vr or self.finds_implicit_vr(expected=is_implicit_vr)
        return self.dataset(end, is_implicit_vr=is_implicit)


def _is_sequence(tag: BaseTag, vr: str | None, length: int) -> bool:
    if vr is not None and vr != "UN":
        return vr == "SQ"
    known = _dictionary_vr(tag)
    if vr is None and known is not None:
        return known == "SQ"
    return length == _UNDEFINED or known == "SQ"


def _is_worth_reading(element: RawDataElement) -> bool:
    """Tell whether pydicom left a value out that is no binary one."""
    is_left_out = element.value is None and element.length not in {0, _UNDEFINED}
    return is_left_out and (element.VR or _dictionary_vr(element.tag) or "UN") not in BULK_VRS


def _dictionary_vr(tag: BaseTag) -> str | None:
    try:
        return dictionary_VR(tag).split(" or ", maxsplit=1)[0]
    except KeyError:
        return None
