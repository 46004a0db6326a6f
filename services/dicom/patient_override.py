"""Writes another patient into a file, as replacements of byte ranges in its header.

Afterwards nothing in the header identifies the former patient: other IDs, names, addresses and
numbers are removed, and PatientID and PatientName inside of sequences are those of the new patient.
The OriginalAttributesSequence (PS3.3 C.12.1.1.9.1) lists the changed attributes with the system and
the time of the change, without their former values.
"""

import struct
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import BinaryIO, Self

from services.dicom.character_sets import UTF_8, encode
from services.dicom.deflation import inflated_copy
from services.dicom.element_bytes import Encoding, element_bytes, item_bytes, pad
from services.dicom.elements import Elements, dictionary_vr, header_places, kept_elements
from services.dicom.header import InstanceHeader
from services.dicom.layout import Element, FileLayout, WalkLimits
from services.dicom.parser import walk
from services.dicom.person_names import clean_person_name
from services.dicom.values import clean_identifier, clean_text, parse_datetime
from services.errors import FileRejected, InvalidInput


@dataclass(frozen=True, slots=True)
class PatientOverride:
    """The patient to write into stored files; None keeps what a file says.

    Attributes:
        is_confirmed: The PatientID may be one that is stored with another name.
    """

    patient_id: str | None = None
    patient_name: str | None = None
    is_confirmed: bool = False

    @classmethod
    def of(
        cls, patient_id: str | None, patient_name: str | None, *, is_confirmed: bool = False
    ) -> Self:
        """Return an override with values from a request; one without visible characters is None.

        Forms also send inputs that are not filled in: they must not erase a patient's identity.
        """
        return cls(_filled_in(patient_id), _filled_in(patient_name), is_confirmed)

    def changes(self, header: InstanceHeader) -> bool:
        """Return whether it gives a file another patient."""
        return overridden(header, self).patient != header.patient


def _filled_in(value: str | None) -> str | None:
    return None if clean_text(value) is None else value


def overridden(header: InstanceHeader, override: PatientOverride) -> InstanceHeader:
    """Return the header as the stored file has it."""
    patient = header.patient
    if override.patient_id is not None:
        patient = replace(patient, patient_id=clean_identifier(override.patient_id))
        header = replace(header, identifying_patient_id=override.patient_id.rstrip(" "))
    if override.patient_name is not None:
        patient = replace(patient, patient_name=clean_person_name(override.patient_name))
    if patient == header.patient:
        return header
    return replace(header, patient=replace(patient, issuer_of_patient_id=None))


_MAX_CHARACTERS = 64
"""Of a LO value and of each component group of a PN value (PS3.5 6.2)."""
_MAX_GROUPS = 3
_MAX_COMPONENTS = 5


def validate_override(patient_id: str | None, patient_name: str | None) -> None:
    """Check new values (PS3.5 6.2, LO and PN).

    Raises:
        InvalidInput: Too long, with a backslash or with control characters.
    """
    if patient_id is not None:
        _check_characters("patientID", patient_id)
        if len(patient_id) > _MAX_CHARACTERS:
            raise InvalidInput("patientID may have at most 64 characters.", argument="patientID")
    if patient_name is not None:
        _check_characters("patientName", patient_name)
        groups = patient_name.split("=")
        if len(groups) > _MAX_GROUPS or any(len(g) > _MAX_CHARACTERS for g in groups):
            message = "patientName may have three groups (=) of at most 64 characters."
            raise InvalidInput(message, argument="patientName")
        if any(group.count("^") >= _MAX_COMPONENTS for group in groups):
            message = "patientName may have five components (^) in each group."
            raise InvalidInput(message, argument="patientName")


def _check_characters(name: str, value: str) -> None:
    if "\\" in value or any(unicodedata.category(c) in ("Cc", "Cs") for c in value):
        message = f"{name} must not contain backslashes or control characters."
        raise InvalidInput(message, argument=name)


_CHARACTER_SET, _PATIENT_NAME, _PATIENT_ID = 0x00080005, 0x00100010, 0x00100020
_ORIGINAL_ATTRIBUTES = 0x04000561
_MODIFIED_ATTRIBUTES, _NONCONFORMING_ATTRIBUTES = 0x04000550, 0x04000551
_MODIFIED_AT, _MODIFYING_SYSTEM = 0x04000562, 0x04000563
_PREVIOUS_SOURCE, _REASON = 0x04000564, 0x04000565
_FORMER_VALUES = frozenset({_MODIFIED_ATTRIBUTES, _NONCONFORMING_ATTRIBUTES})
OTHER_IDENTITY = frozenset(
    {
        0x00081120,  # ReferencedPatientSequence
        0x00100021,  # IssuerOfPatientID
        0x00100022,  # TypeOfPatientID
        0x00100024,  # IssuerOfPatientIDQualifiersSequence
        0x00100026,  # SourcePatientGroupIdentificationSequence
        0x00100027,  # GroupOfPatientsIdentificationSequence
        0x00100050,  # PatientInsurancePlanCodeSequence
        0x00101000,  # OtherPatientIDs
        0x00101001,  # OtherPatientNames
        0x00101002,  # OtherPatientIDsSequence
        0x00101005,  # PatientBirthName
        0x00101040,  # PatientAddress
        0x00101050,  # InsurancePlanIdentification
        0x00101060,  # PatientMotherBirthName
        0x00101090,  # MedicalRecordLocator
        0x00101100,  # ReferencedPatientPhotoSequence
        0x00102154,  # PatientTelephoneNumbers
        0x00102155,  # PatientTelecomInformation
        0x00102297,  # ResponsiblePerson
        0x00104000,  # PatientComments
    }
)
"""Attributes that are removed because they identify or describe the former patient."""
_IDENTITY = OTHER_IDENTITY | {_PATIENT_NAME, _PATIENT_ID}
_TEXT_VRS = frozenset({"LO", "LT", "PN", "SH", "ST", "UC", "UT"})
"""VRs to which SpecificCharacterSet applies (PS3.5 6.1.2.3)."""
_DATE_TIME_FORMAT = "%Y%m%d%H%M%S.%f%z"
"""DT (PS3.5 6.2): 26 characters."""
_DELIMITER_BYTES = 8
_SYSTEM_NAME = "orthanc-graphql"
_MAX_HEADER_BYTES = 64 * 1024 * 1024
"""A header that is written again is held in memory, so longer ones are refused."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Splice:
    """Bytes from `begin` up to `end` are replaced by `replacement`."""

    begin: int
    end: int
    replacement: bytes


def patient_splices(
    file: BinaryIO, layout: FileLayout, override: PatientOverride, modified_at: datetime
) -> list[Splice]:
    """Return the replacements that give a file another patient, by rising offset.

    The new values are written in the character set of the file. When it does not have their
    characters, the whole header is written in UTF-8 and SpecificCharacterSet says ISO_IR 192.

    Args:
        file: The file; the inflated copy of a deflated one.
        layout: What `walk` found in it.
        override: The new patient.
        modified_at: When this is done, with its offset from UTC.

    Raises:
        FileRejected: MALFORMED when the header is too long to be written again.
    """
    places, header_end = header_places(file, layout)
    elements = kept_elements(file, layout, places)
    try:
        writer = _Writer(elements.encoding, override, modified_at, in_utf_8=False)
        changed = writer.changed_elements(elements)
    except _NotEncodable:
        if header_end - layout.dataset_offset > _MAX_HEADER_BYTES:
            message = f"The header is too long to be written in {UTF_8}."
            raise FileRejected("MALFORMED", message) from None
        writer = _Writer(elements.encoding, override, modified_at, in_utf_8=True)
        replacement = writer.joined(elements, writer.changed_elements(elements))
        return [Splice(begin=layout.dataset_offset, end=header_end, replacement=replacement)]
    return _splices(places, header_end, changed)


def read_modified_at(file: BinaryIO) -> datetime | None:
    """Return when another patient was written into a file; None when never.

    Args:
        file: The file, or its beginning up to its pixel data.

    Raises:
        FileRejected: With the codes of `walk`.
    """
    layout = walk(file, keep={_ORIGINAL_ATTRIBUTES})
    if not layout.is_deflated:
        return _modified_at(kept_elements(file, layout))
    with inflated_copy(file, layout.dataset_offset, WalkLimits()) as inflated:
        return _modified_at(kept_elements(inflated, layout))


def _modified_at(elements: Elements) -> datetime | None:
    changes = [change.text(_MODIFIED_AT) for change in elements.items(_ORIGINAL_ATTRIBUTES)]
    modified_at = parse_datetime(changes[-1]) if changes else None
    return None if modified_at is None else datetime.fromisoformat(modified_at)


def _splices(places: list[Element], header_end: int, changed: Mapping[int, bytes]) -> list[Splice]:
    groups = {tag >> 16 for tag in changed}
    pending = dict(changed)
    splices = []
    for place in places:
        is_group_length = place.tag & 0xFFFF == 0 and place.tag >> 16 in groups
        if place.tag in changed or is_group_length:
            # An element is written once; repetitions go, as do group lengths (PS3.5 7.2).
            replacement = pending.pop(place.tag, b"")
            splices.append(Splice(begin=place.begin, end=place.end, replacement=replacement))
    for tag, replacement in sorted(pending.items()):
        at = next((place.begin for place in places if place.tag > tag), header_end)
        splices.append(Splice(begin=at, end=at, replacement=replacement))
    return sorted(splices, key=lambda splice: (splice.begin, splice.end))


class _NotEncodable(Exception):
    """A character set of the file does not have the characters of a new value."""


class _Writer:
    """Writes elements and items of a file with another patient.

    Args:
        encoding: Of the file.
        override: The new patient.
        modified_at: When this is done.
        in_utf_8: Write all texts in UTF-8; else keep the character sets of the file.
    """

    def __init__(
        self,
        encoding: Encoding,
        override: PatientOverride,
        modified_at: datetime,
        *,
        in_utf_8: bool,
    ) -> None:
        self._encoding = encoding
        self._modified_at = modified_at
        self._in_utf_8 = in_utf_8
        new = {_PATIENT_NAME: override.patient_name, _PATIENT_ID: override.patient_id}
        self._new = {tag: text for tag, text in new.items() if text is not None}
        self._marks = [
            struct.pack(f"{encoding.order}HH", tag >> 16, tag & 0xFFFF) for tag in _IDENTITY
        ]

    def changed_elements(self, elements: Elements) -> dict[int, bytes]:
        """Return what is written instead of elements of the top level; nothing removes one.

        Raises:
            _NotEncodable: The new values need UTF-8.
        """
        charset = elements.text(_CHARACTER_SET)
        changed = {tag: self._patient_element(tag, charset) for tag in self._new}
        changed |= {element.tag: b"" for element in elements if element.tag in OTHER_IDENTITY}
        attributes = sorted(changed)
        changed |= self._changed_sequences(elements, charset)
        changed[_ORIGINAL_ATTRIBUTES] = self._original_attributes(elements, charset, attributes)
        return changed

    def joined(
        self, elements: Elements, changed: Mapping[int, bytes], *, is_item: bool = False
    ) -> bytes:
        """Write all elements of a dataset or an item, some of them changed."""
        written = {
            element.tag: self._copied(elements, element)
            for element in elements
            if element.tag not in changed and element.tag & 0xFFFF != 0
        }
        written |= changed
        if self._in_utf_8 and (_CHARACTER_SET in elements or not is_item):
            written[_CHARACTER_SET] = self._bytes(_CHARACTER_SET, "CS", UTF_8)
        return b"".join(written[tag] for tag in sorted(written))

    def _changed_sequences(
        self, elements: Elements, charset: str | None, *, is_former: bool = False
    ) -> dict[int, bytes]:
        """Write the sequences with attributes that name a patient."""
        return {
            element.tag: self._sequence(elements, element.tag, charset, is_former=is_former)
            for element in elements
            if element.is_sequence
            and element.tag not in OTHER_IDENTITY
            and self._names_patient(elements, element)
        }

    def _names_patient(self, elements: Elements, sequence: Element) -> bool:
        if sequence.end - sequence.begin > _MAX_HEADER_BYTES:
            raise FileRejected("MALFORMED", "A sequence of this file is too long to be searched.")
        content = elements.raw(sequence.tag)
        # Searching bytes is fast; few sequences have these, and pixels and waveforms have them too.
        return any(mark in content for mark in self._marks) and any(
            element.tag in _IDENTITY or (element.is_sequence and self._names_patient(item, element))
            for item in elements.items(sequence.tag)
            for element in item
        )

    def _sequence(
        self, elements: Elements, tag: int, charset: str | None, *, is_former: bool = False
    ) -> bytes:
        is_former = is_former or tag in _FORMER_VALUES
        items = (self._item(item, charset, is_former=is_former) for item in elements.items(tag))
        return element_bytes(tag, "SQ", b"".join(items), self._encoding)

    def _item(self, item: Elements, charset: str | None, *, is_former: bool) -> bytes:
        """Write an item; where it holds former values, those of a patient become empty."""
        charset = item.text(_CHARACTER_SET) or charset
        if is_former:
            changed = {
                tag: self._bytes(tag, dictionary_vr(tag), "") for tag in _IDENTITY if tag in item
            }
        else:
            changed = {tag: b"" for tag in OTHER_IDENTITY if tag in item}
            changed |= {
                tag: self._patient_element(tag, charset) for tag in self._new if tag in item
            }
        changed |= self._changed_sequences(item, charset, is_former=is_former)
        return item_bytes(self.joined(item, changed, is_item=True), self._encoding)

    def _original_attributes(
        self, elements: Elements, charset: str | None, attributes: Iterable[int]
    ) -> bytes:
        """Write OriginalAttributesSequence with an item for this change (PS3.3 C.12.1.1.9.1)."""
        emptied = b"".join(self._bytes(tag, dictionary_vr(tag), "") for tag in attributes)
        modified = item_bytes(emptied, self._encoding)
        item = [
            element_bytes(_MODIFIED_ATTRIBUTES, "SQ", modified, self._encoding),
            self._bytes(_MODIFIED_AT, "DT", self._modified_at.strftime(_DATE_TIME_FORMAT)),
            self._bytes(_MODIFYING_SYSTEM, "LO", _SYSTEM_NAME),
            self._bytes(_PREVIOUS_SOURCE, "LO", ""),
            self._bytes(_REASON, "CS", "COERCE"),
        ]
        earlier = [
            self._item(earlier, charset, is_former=False)
            for earlier in elements.items(_ORIGINAL_ATTRIBUTES)
        ]
        items = b"".join([*earlier, item_bytes(b"".join(item), self._encoding)])
        return element_bytes(_ORIGINAL_ATTRIBUTES, "SQ", items, self._encoding)

    def _patient_element(self, tag: int, charset: str | None) -> bytes:
        text = self._new[tag]
        value = text.encode() if self._in_utf_8 else encode(text, charset)
        if value is None:
            raise _NotEncodable
        vr = dictionary_vr(tag)
        return element_bytes(tag, vr, pad(value, vr), self._encoding)

    def _bytes(self, tag: int, vr: str, text: str) -> bytes:
        return element_bytes(tag, vr, pad(text.encode("ascii"), vr), self._encoding)

    def _copied(self, elements: Elements, element: Element) -> bytes:
        if not self._in_utf_8 and elements.encoding == self._encoding:
            return elements.raw(element.tag)
        tag = element.tag
        if element.is_sequence:
            items = (self.joined(item, {}, is_item=True) for item in elements.items(tag))
            value = b"".join(item_bytes(item, self._encoding) for item in items)
            return element_bytes(tag, "SQ", value, self._encoding)
        vr = elements.vr(tag)
        value = elements.value(tag)
        if element.is_undefined_length:
            value = value[:-_DELIMITER_BYTES]
        elif vr in _TEXT_VRS:
            value = pad((elements.text(tag) or "").encode(), vr)
        return element_bytes(
            tag,
            element.vr.decode("ascii") or vr,
            value,
            self._encoding,
            undefined_length=element.is_undefined_length,
        )
