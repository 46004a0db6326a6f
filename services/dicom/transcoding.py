"""Headers written anew in UTF-8, every other value as it was."""

from collections.abc import Mapping
from typing import BinaryIO

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from services.dicom.attributes import DatasetAttributes
from services.dicom.character_sets import UTF_8
from services.dicom.element_bytes import (
    UNDEFINED_LENGTH,
    Encoding,
    element_bytes,
    item_bytes,
    pad,
)
from services.dicom.element_names import tag_text
from services.dicom.layout import FileLayout
from services.dicom.pydicom_reading import read_header_dataset
from services.errors import FileRejected

_CHARACTER_SET, _PATIENT_NAME = 0x00080005, 0x00100010
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""VRs that SpecificCharacterSet is about (PS3.5 6.1.2.3)."""


def read_character_set(file: BinaryIO, layout: FileLayout) -> str | None:
    """Read SpecificCharacterSet and pass over all else.

    Raises:
        FileRejected: MALFORMED when pydicom can't read what the walk could.
    """
    dataset = read_header_dataset(file, layout, [_CHARACTER_SET])
    return DatasetAttributes(dataset).text(_CHARACTER_SET)


def header_in_utf8(dataset: Dataset, values: Mapping[int, bytes], encoding: Encoding) -> bytes:
    """Write a header with its texts in UTF-8.

    Args:
        dataset: The header with raw values.
        values: Values that replace those of the top level, in UTF-8, by tag.
        encoding: How it is written; the one that it was read in.

    Raises:
        FileRejected: MALFORMED when a text outgrows its VR.
    """
    values = {_CHARACTER_SET: UTF_8.encode(), **values}
    return _dataset_bytes(DatasetAttributes(dataset), values, encoding)


def _dataset_bytes(
    attributes: DatasetAttributes, values: Mapping[int, bytes], encoding: Encoding
) -> bytes:
    elements = {
        tag: _element_bytes(attributes, tag, vr, encoding)
        for tag, vr in attributes.vrs()
        if tag & 0xFFFF != 0  # group lengths would be wrong (PS3.5 7.2)
    }
    for tag, value in values.items():
        vr = {_CHARACTER_SET: "CS", _PATIENT_NAME: "PN"}.get(tag, "LO")
        elements[tag] = element_bytes(tag, vr, pad(value, vr), encoding)
    return b"".join(elements[tag] for tag in sorted(elements))


def _element_bytes(attributes: DatasetAttributes, tag: int, vr: str, encoding: Encoding) -> bytes:
    element = attributes.element(tag)
    if not isinstance(element, RawDataElement) or vr == "SQ":
        read = attributes.items(tag)
        if isinstance(element, RawDataElement) and element.value and not read:
            message = f"The sequence {tag_text(tag >> 16, tag & 0xFFFF)} can't be read."
            raise FileRejected("MALFORMED", message)
        items = b"".join(
            item_bytes(_dataset_bytes(item, _character_set_of(item), encoding), encoding)
            for item in read
        )
        return element_bytes(tag, "SQ", items, encoding)
    value = element.value or b""
    if vr in _TEXT_VRS:
        value = pad((attributes.text(tag) or "").encode(), vr)
    written_vr = element.VR or vr
    undefined = element.length == UNDEFINED_LENGTH
    return element_bytes(tag, written_vr, value, encoding, undefined_length=undefined)


def _character_set_of(item: DatasetAttributes) -> dict[int, bytes]:
    return {_CHARACTER_SET: UTF_8.encode()} if _CHARACTER_SET in item else {}
