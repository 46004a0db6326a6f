"""The DICOM JSON model (PS3.18 F) of a header, without bulk data."""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.filereader import data_element_generator
from pydicom.sequence import Sequence
from pydicom.tag import BaseTag

from services.dicom.deflation import inflated_copy
from services.dicom.layout import FileLayout, WalkLimits
from services.dicom.parser import walk
from services.dicom.pydicom_reading import header_stream
from services.dicom.reading import DatasetAttributes
from services.dicom.values import UTF_8, parse_float, parse_int
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


_SINGLE_VRS = frozenset({"LT", "ST", "UR", "UT"})
"""VRs in which a backslash is a character (PS3.5 6.2)."""
_INTEGER_VRS = frozenset({"IS", "SL", "SS", "SV", "UL", "US", "UV"})
_FLOAT_VRS = frozenset({"DS", "FD", "FL"})
_NAME_GROUPS = ("Alphabetic", "Ideographic", "Phonetic")


def header_json(file: BinaryIO, limits: WalkLimits | None = None) -> dict[str, Any]:
    """Return the header of a file in the DICOM JSON model.

    Elements of binary VRs stand with their VR and without value; there is no BulkDataURI, and long
    ones are not even read. Reading stops before group 7FE0. Text is Unicode, so
    SpecificCharacterSet says ISO_IR 192. An element that pydicom can't convert keeps its VR and
    loses its value.

    Raises:
        FileRejected: With the codes of `walk.walk`.
    """
    layout = walk(file, limits)
    if not layout.is_deflated:
        return _items(DatasetAttributes(skim_header(file, layout)))
    with inflated_copy(file, layout.dataset_offset, limits or WalkLimits()) as inflated:
        return _items(DatasetAttributes(skim_header(inflated, layout)))


def _items(attributes: DatasetAttributes) -> dict[str, Any]:
    model = {
        f"{tag:08X}": _element(attributes, tag, vr)
        for tag, vr in attributes.vrs()
        if tag & 0xFFFF != 0  # group lengths are retired (PS3.5 7.2)
    }
    if "00080005" in model:
        model["00080005"]["Value"] = [UTF_8]
    return model


def _element(attributes: DatasetAttributes, tag: int, vr: str) -> dict[str, Any]:
    if vr in BULK_VRS:
        return {"vr": vr}
    if vr == "SQ":
        items = [_items(item) for item in attributes.items(tag)]
        return {"vr": vr, "Value": items} if items else {"vr": vr}
    if vr == "AT":
        return _tags(attributes, tag)
    text = (attributes.text(tag) or "").rstrip(" \0")
    if not text:
        return {"vr": vr}
    texts = [text] if vr in _SINGLE_VRS else text.split("\\")
    values = [_value(vr, part.strip(" \0")) for part in texts]
    return {"vr": vr, "Value": values} if any(v is not None for v in values) else {"vr": vr}


def _tags(attributes: DatasetAttributes, tag: int) -> dict[str, Any]:
    """Write AT as eight hexadecimal digits each (PS3.18 F.2.3)."""
    numbers = attributes.numbers(tag, "H")
    pairs = zip(numbers[::2], numbers[1::2], strict=False)
    values = [f"{group:04X}{element:04X}" for group, element in pairs]
    return {"vr": "AT", "Value": values} if values else {"vr": "AT"}


def _value(vr: str, text: str) -> Any:  # noqa: ANN401 - text, number, name or null (PS3.18 F.2.2)
    if vr == "PN":
        groups = zip(_NAME_GROUPS, text.split("="), strict=False)
        return {name: group for name, group in groups if group} or None
    if vr in _INTEGER_VRS:
        return parse_int(text) if vr == "IS" else int(text)
    if vr in _FLOAT_VRS:
        return parse_float(text)
    return text or None
