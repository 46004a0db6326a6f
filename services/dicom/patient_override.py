"""New PatientID and PatientName as replacements of byte ranges in a header."""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import BinaryIO, Self

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset

from services.dicom.element_bytes import (
    UNDEFINED_LENGTH,
    Encoding,
    element_bytes,
    item_bytes,
    pad,
    tag_text,
)
from services.dicom.header import InstanceHeader
from services.dicom.layout import FileLayout, WalkLimits
from services.dicom.parser import ByteWindow, ElementWalk
from services.dicom.pydicom_reading import read_header_dataset
from services.dicom.reading import DatasetAttributes
from services.dicom.values import UTF_8, clean_person_name, clean_text, encode
from services.errors import FileRejected, InvalidInput


@dataclass(frozen=True, slots=True)
class PatientOverride:
    """The patient to write into stored files; None keeps what a file says."""

    patient_id: str | None = None
    patient_name: str | None = None

    @classmethod
    def of(cls, patient_id: str | None, patient_name: str | None) -> Self:
        """Make one of what was sent; a value without a visible character counts as none.

        Forms send the inputs that nobody filled in: they must not take a patient's identity.
        """
        return cls(_filled_in(patient_id), _filled_in(patient_name))


def _filled_in(value: str | None) -> str | None:
    return None if clean_text(value) is None else value


def overridden(header: InstanceHeader, override: PatientOverride) -> InstanceHeader:
    """Return the header as the stored file has it."""
    patient = header.patient
    if override.patient_id is not None:
        patient = replace(patient, patient_id=clean_text(override.patient_id) or "")
    if override.patient_name is not None:
        patient = replace(patient, patient_name=clean_person_name(override.patient_name))
    return replace(header, patient=patient)


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


_MAX_CHARACTERS = 64
"""Of a LO value and of each component group of a PN value (PS3.5 6.2)."""
_MAX_GROUPS = 3
_MAX_COMPONENTS = 5
_PATIENT_NAME, _PATIENT_ID = 0x00100010, 0x00100020
_PIXEL_DATA_GROUP = 0x7FE00000
_MAX_HEADER_BYTES = 64 * 1024 * 1024
"""Headers are re-encoded in memory; larger ones are refused rather than read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splice:
    """Bytes from `begin` up to `end` give way to `replacement`."""

    begin: int
    end: int
    replacement: bytes


def validate_override(patient_id: str | None, patient_name: str | None) -> None:
    """Check new values (PS3.5 6.2, LO and PN).

    Raises:
        InvalidInput: Too long, with a backslash or with control characters.
    """
    if patient_id is not None:
        _check_characters("patientID", patient_id)
        if len(patient_id) > _MAX_CHARACTERS:
            raise InvalidInput("patientID may have at most 64 characters.")
    if patient_name is not None:
        _check_characters("patientName", patient_name)
        groups = patient_name.split("=")
        if len(groups) > _MAX_GROUPS or any(len(g) > _MAX_CHARACTERS for g in groups):
            message = "patientName may have three groups (=) of at most 64 characters."
            raise InvalidInput(message)
        if any(group.count("^") >= _MAX_COMPONENTS for group in groups):
            raise InvalidInput("patientName may have five components (^) in each group.")


def _check_characters(name: str, value: str) -> None:
    if "\\" in value or any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        raise InvalidInput(f"{name} must not contain backslashes or control characters.")


def patient_splices(
    file: BinaryIO, layout: FileLayout, patient_id: str | None, patient_name: str | None
) -> list[Splice]:
    """Return the replacements that give a file another patient, by rising offset.

    The new values are written in the character set of the file. When it lacks their characters,
    the header is written anew in UTF-8 and SpecificCharacterSet says ISO_IR 192.

    Args:
        file: The file; the inflated copy of a deflated one.
        layout: What `walk` said about it.
        patient_id: New PatientID, None to keep it.
        patient_name: New PatientName, None to keep it.

    Raises:
        FileRejected: MALFORMED when the header can't be read or is too long to be written anew.
    """
    texts = {
        tag: text
        for tag, text in ((_PATIENT_NAME, patient_name), (_PATIENT_ID, patient_id))
        if text is not None
    }
    index = _top_level(file, layout)
    header_end = next((at for tag, at in index if tag >= _PIXEL_DATA_GROUP), layout.end_offset)
    character_set = read_character_set(file, layout)
    values = {tag: encode(text, character_set) for tag, text in texts.items()}
    encoding = Encoding(layout.is_implicit_vr, layout.is_little_endian)
    found = {tag: value for tag, value in values.items() if value is not None}
    if len(found) == len(values):
        return _splices(index, layout.end_offset, found, encoding)
    if header_end - layout.dataset_offset > _MAX_HEADER_BYTES:
        raise FileRejected("MALFORMED", f"The header is too long to be written in {UTF_8}.")
    utf8 = {tag: text.encode() for tag, text in texts.items()}
    replacement = header_in_utf8(read_header_dataset(file, layout), utf8, encoding)
    return [Splice(begin=layout.dataset_offset, end=header_end, replacement=replacement)]


_PROVEN = WalkLimits(
    sequence_max_depth=1_000,
    sequence_max_items=2**32,
    header_max_items=2**32,
    dataset_max_elements=2**32,
    header_max_elements=2**32,
    max_fragments=2**32,
)
"""A second walk needs no limits."""


def _top_level(file: BinaryIO, layout: FileLayout) -> list[tuple[int, int]]:
    index: list[tuple[int, int]] = []
    ElementWalk(
        ByteWindow(file),
        is_implicit_vr=layout.is_implicit_vr,
        is_little_endian=layout.is_little_endian,
        limits=_PROVEN,
        index=index,
    ).walk(layout.dataset_offset)
    return index


def _splices(
    index: list[tuple[int, int]], end: int, values: dict[int, bytes], encoding: Encoding
) -> list[Splice]:
    ends = [at for _, at in index[1:]] + [end]
    splices = []
    for tag, value in values.items():
        vr = "PN" if tag == _PATIENT_NAME else "LO"
        element = element_bytes(tag, vr, pad(value, vr), encoding)
        places = [(at, to) for (found, at), to in zip(index, ends, strict=True) if found == tag]
        if not places:
            at = next((at for found, at in index if found > tag), end)
            places = [(at, at)]
        for at, to in places:
            splices.append(Splice(begin=at, end=to, replacement=element))
            element = b""  # an element stands once; repetitions go
    return sorted(splices, key=lambda splice: splice.begin)
