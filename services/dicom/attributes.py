"""One view of a header's attributes, whether pydicom or Orthanc read them."""

import struct
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset

from services.dicom.character_sets import decode, encodings_of

_NUMBER_FORMATS = {
    "US": "H", "SS": "h", "UL": "I", "SL": "i", "FL": "f", "FD": "d", "UV": "Q", "SV": "q",
}  # fmt: skip
"""Binary VRs (PS3.5 6.2) as the struct module names them."""


class Attributes(Protocol):
    """The attributes of a dataset or of an item, by tag."""

    def text(self, tag: int) -> str | None:
        """Return the values as text, separated by backslashes; None when absent or no text."""

    def items(self, tag: int) -> Sequence["Attributes"]:
        """Return the items of a sequence; none when absent or no sequence."""

    def __contains__(self, tag: int) -> bool:
        """Tell whether the attribute is there, with or without a value."""


class DatasetAttributes:
    """Attributes of a pydicom dataset, read from its raw bytes: bad values are never an error."""

    def __init__(self, dataset: Dataset, encodings: list[str] | None = None) -> None:
        self._dataset = dataset
        # Kept apart, for pydicom converts some elements while it reads a sequence.
        self._elements: dict[int, DataElement | RawDataElement] = {
            int(tag): element for tag, element in dataset.items()
        }
        self._encodings = encodings or ["latin_1"]
        charset = self.text(0x00080005)
        if charset is not None:
            self._encodings = encodings_of(charset)

    def __contains__(self, tag: int) -> bool:
        return tag in self._elements

    def text(self, tag: int) -> str | None:
        """Return the values as text; binary numbers are written out."""
        raw = self._elements.get(tag)
        if not isinstance(raw, RawDataElement):
            return None
        value = raw.value or b""
        return _text(self._vr(tag), value, self._encodings, is_little_endian=raw.is_little_endian)

    def numbers(self, tag: int, code: str) -> list[int]:
        """Return a binary value as the integers that the struct module calls `code`."""
        raw = self._elements.get(tag)
        if not isinstance(raw, RawDataElement):
            return []
        text = _numbers(raw.value or b"", code, is_little_endian=raw.is_little_endian)
        return [int(number) for number in text.split("\\") if number]

    def element(self, tag: int) -> DataElement | RawDataElement | None:
        """Return the element as pydicom keeps it: raw, or a sequence that it has read."""
        return self._elements.get(tag)

    def vrs(self) -> list[tuple[int, str]]:
        """Return the tags and VRs, in order; VRs that are missing come from the dictionary."""
        return [(tag, self._vr(tag)) for tag in self._elements]

    def _vr(self, tag: int) -> str:
        vr = str(self._elements[tag].VR or "UN")
        return vr if vr != "UN" else _dictionary_vr(tag)

    def items(self, tag: int) -> list["DatasetAttributes"]:
        """Return the items; a sequence that pydicom can't read has none."""
        if tag not in self._elements:
            return []
        try:
            value = self._dataset[tag].value
        except Exception:  # noqa: BLE001 - pydicom raises whatever sloppy items lead it to
            return []
        if not isinstance(value, list) and not hasattr(value, "__iter__"):
            return []
        return [
            DatasetAttributes(item, self._encodings) for item in value if isinstance(item, Dataset)
        ]


class PlainAttributes:
    """Attributes without items: their VRs and values by tag, as they stand in a file."""

    def __init__(self, values: Mapping[int, tuple[str, bytes]], *, is_little_endian: bool) -> None:
        self._values = values
        self._is_little_endian = is_little_endian
        self._encodings = ["latin_1"]
        self._encodings = encodings_of(self.text(0x00080005))

    def __contains__(self, tag: int) -> bool:
        return tag in self._values

    def text(self, tag: int) -> str | None:
        """Return the values as text; binary numbers are written out."""
        if tag not in self._values:
            return None
        vr, value = self._values[tag]
        return _text(vr, value, self._encodings, is_little_endian=self._is_little_endian)

    def items(self, _tag: int) -> Sequence[Attributes]:
        """Return no items: there are no sequences."""
        return []


class OrthancAttributes:
    """Attributes as Orthanc's full tag format tells them (`GET /series/{id}/instances-tags`)."""

    def __init__(self, tags: Mapping[str, Any]) -> None:
        self._tags = tags

    def __contains__(self, tag: int) -> bool:
        return _orthanc_name(tag) in self._tags

    def text(self, tag: int) -> str | None:
        """Return the values as text; None for what Orthanc leaves out as binary or too long."""
        value = self._tags.get(_orthanc_name(tag), {}).get("Value")
        return value if isinstance(value, str) else None

    def items(self, tag: int) -> Sequence[Attributes]:
        """Return the items of a sequence."""
        value = self._tags.get(_orthanc_name(tag), {}).get("Value")
        return [OrthancAttributes(item) for item in value] if isinstance(value, list) else []


def _orthanc_name(tag: int) -> str:
    return f"{tag >> 16:04x},{tag & 0xFFFF:04x}"


def _dictionary_vr(tag: int) -> str:
    try:
        return dictionary_VR(tag).split(" or ")[0]
    except KeyError:
        return "UN"


def _text(vr: str, value: bytes, encodings: Sequence[str], *, is_little_endian: bool) -> str:
    code = _NUMBER_FORMATS.get(vr)
    if code is not None:
        return _numbers(value, code, is_little_endian=is_little_endian)
    return decode(value, encodings)


def _numbers(value: bytes, code: str, *, is_little_endian: bool) -> str:
    size = struct.calcsize(code)
    count = len(value) // size
    order = "<" if is_little_endian else ">"
    return "\\".join(map(str, struct.unpack_from(f"{order}{count}{code}", value)))
