"""New PatientID and PatientName as replacements of byte ranges in a header."""

import unicodedata
from dataclasses import dataclass
from typing import BinaryIO

from services.dicom.byte_window import ByteWindow
from services.dicom.character_sets import UTF_8, encode
from services.dicom.element_bytes import Encoding, element_bytes, pad
from services.dicom.element_walk import ElementWalk
from services.dicom.layout import FileLayout, WalkLimits
from services.dicom.pydicom_reading import read_header_dataset
from services.dicom.transcoding import header_in_utf8, read_character_set
from services.errors import FileRejected, InvalidInput

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


def _top_level(file: BinaryIO, layout: FileLayout) -> list[tuple[int, int]]:
    index: list[tuple[int, int]] = []
    ElementWalk(
        ByteWindow(file),
        is_implicit_vr=layout.is_implicit_vr,
        is_little_endian=layout.is_little_endian,
        limits=WalkLimits(max_elements=layout.element_count, sequence_max_depth=1_000),
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
