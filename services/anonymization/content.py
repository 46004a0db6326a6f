"""The header of a file without the identity of its patient."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pydicom.datadict import dictionary_VR
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence as DicomSequence

from services.anonymization.profile import (
    DEFINED_TERMS,
    EDITION,
    Treatment,
    is_well_known,
    treatment_of,
)
from services.anonymization.pseudonyms import Pseudonyms

METHOD = f"PS3.15 E {EDITION} Basic Profile, closed by orthanc-graphql"
"""DeidentificationMethod (0012,0063), LO: at most 64 characters."""

_CODES = {
    "profile": ("113100", "Basic Application Confidentiality Profile"),
    "descriptions": ("113105", "Clean Descriptors Option"),
    "dates": ("113106", "Retain Longitudinal Temporal Information Full Dates Option"),
    "characteristics": ("113108", "Retain Patient Characteristics Option"),
    "device": ("113109", "Retain Device Identity Option"),
    "institution": ("113112", "Retain Institution Identity Option"),
}
"""DeidentificationMethodCodeSequence (PS3.16 CID 7050)."""

_DATE_VRS = frozenset({"DA", "DT", "TM"})
_CHARACTERISTICS = frozenset(
    {"PatientAge", "PatientSex", "PatientSize", "PatientWeight", "PregnancyStatus", "SmokingStatus"}
)
_DEVICES = frozenset({"Manufacturer", "ManufacturerModelName", "SoftwareVersions"})
_INSTITUTIONS = frozenset({"InstitutionName", "InstitutionalDepartmentName"})

_DUMMY_TEXT = "ANONYMIZED"
_DUMMIES: Mapping[str, Any] = {
    "AE": "ANONYMIZED",
    "AS": "000D",
    "CS": "ANONYMIZED",
    "DA": "19000101",
    "DS": "0",
    "DT": "19000101000000",
    "IS": "0",
    "TM": "000000",
    "UR": "urn:anonymized",
    **dict.fromkeys(("LO", "LT", "PN", "SH", "ST", "UC", "UT"), _DUMMY_TEXT),
    **dict.fromkeys(("FD", "FL", "SL", "SS", "SV", "UL", "US", "UV"), 0),
}
"""Values without meaning, valid for their VR (PS3.5 6.2)."""

_NAMES_MIN_CHARACTERS = 3
_IDENTIFIERS_MIN_CHARACTERS = 4
"""Shorter words of an identity are words of much else as well."""

_ANYWHERE_MIN_CHARACTERS = 5
"""Longer words are found inside of others, shorter ones only alone."""

_IDENTIFIERS = frozenset(
    {
        "PatientID", "OtherPatientIDs", "AccessionNumber", "IssuerOfPatientID",
        "PatientAddress", "PatientTelephoneNumbers", "MedicalRecordLocator", "AdmissionID",
        "InstitutionName", "InstitutionAddress", "StationName", "DeviceSerialNumber",
        "RequestedProcedureID", "ScheduledProcedureStepID", "PatientBirthDate",
    }
)  # fmt: skip
_NUMBERS = re.compile(r"[0-9+\-.eE \\\0]*")
_TEXT_VRS = frozenset(
    {"AE", "AS", "CS", "DS", "IS", "LO", "LT", "PN", "SH", "ST", "UC", "UT", "UR"}
)
_WORD = re.compile(r"[^\W_]+")
_ASCII_MAX = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class AnonymizationRules:
    """How files are anonymised.

    Attributes:
        pseudonyms: Make UIDs.
        patient_id: Written as PatientID.
        patient_name: Written as PatientName.
        keep: Keywords that stay at the top level and in items, checked by `may_be_kept`.
        replace: New values by keyword, at the top level.
    """

    pseudonyms: Pseudonyms
    patient_id: str
    patient_name: str
    keep: frozenset[str] = frozenset()
    replace: Mapping[str, str] = field(default_factory=dict)


def anonymized(source: Dataset, rules: AnonymizationRules) -> Dataset:
    """Return a header without the identity of its patient.

    Args:
        source: All elements before the pixel data; values are read from it as they are needed.
        rules: What is written instead.
    """
    identity = Identity.of(source, except_keywords=rules.keep)
    result = _treated(source, rules, identity)
    result.PatientID = rules.patient_id
    result.PatientName = rules.patient_name
    result.PatientIdentityRemoved = "YES"
    result.DeidentificationMethod = METHOD
    result.DeidentificationMethodCodeSequence = DicomSequence(
        [_code(*_CODES[name]) for name in _options(rules.keep)]
    )
    keeps_dates = "dates" in _options(rules.keep)
    result.LongitudinalTemporalInformationModified = "UNMODIFIED" if keeps_dates else "REMOVED"
    for keyword, value in rules.replace.items():
        setattr(result, keyword, value or None)
    written = (rules.patient_id, rules.patient_name, *rules.replace.values())
    if not all(text.isascii() for text in written):
        write_in_utf_8(result)
    return result


def write_in_utf_8(header: Dataset) -> None:
    """Have all texts of a header written in UTF-8; their values are decoded already."""

    def forget(item: Dataset, element: DataElement) -> None:
        if element.keyword == "SpecificCharacterSet":
            del item[element.tag]

    header.walk(forget)
    header.SpecificCharacterSet = "ISO_IR 192"


def _treated(source: Dataset, rules: AnonymizationRules, identity: "Identity") -> Dataset:
    result = Dataset()
    for tag in sorted(source.keys()):
        # What can't be read is left out.
        with suppress(Exception):
            element = source[tag]
            treated = _element(element, rules, identity)
            if treated is not None:
                result.add(treated)
    return result


def _element(
    element: DataElement, rules: AnonymizationRules, identity: "Identity"
) -> DataElement | None:
    treatment = treatment_of(int(element.tag), element.VR)
    if element.keyword in rules.keep and not element.tag.is_private:
        treatment = Treatment.KEEP
    match treatment:
        case Treatment.KEEP if _is_harmless(element, identity):
            return element
        case Treatment.EMPTY:
            return DataElement(element.tag, element.VR, [] if element.VR == "SQ" else None)
        case Treatment.DUMMY if element.VR in _DUMMIES:
            return DataElement(element.tag, element.VR, _DUMMIES[element.VR])
        case Treatment.MAP_UID | Treatment.MAP_UNKNOWN_UID:
            keeps_known = treatment is Treatment.MAP_UNKNOWN_UID
            mapped = [
                uid if keeps_known and is_well_known(uid) else rules.pseudonyms.uid(uid)
                for uid in uids_of(element.value)
            ]
            return DataElement(element.tag, "UI", mapped)
        case Treatment.DESCEND:
            items = [_treated(item, rules, identity) for item in element.value or ()]
            return DataElement(element.tag, "SQ", DicomSequence(items))
    return None


def uids_of(value: Any) -> list[str]:  # noqa: ANN401  # one UID, several or none
    """Return the UIDs of an element without padding."""
    uids = [] if not value else [value] if isinstance(value, str) else list(value)
    return [str(uid).strip(" \0") for uid in uids]


class Identity:
    """The words by which a patient and those around them are known, in lower case.

    Args:
        words: Words of names and whole identifiers.
    """

    def __init__(self, words: Iterable[str]) -> None:
        unique = sorted({word.casefold() for word in words}, key=len, reverse=True)
        patterns = [
            re.escape(word)
            if len(word) >= _ANYWHERE_MIN_CHARACTERS or ord(word[0]) >= _ASCII_MAX
            else rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"
            for word in unique
        ]
        self._pattern = re.compile("|".join(patterns)) if patterns else None

    @classmethod
    def of(cls, dataset: Dataset, *, except_keywords: frozenset[str] = frozenset()) -> "Identity":
        """Gather the words of a header, items included.

        Args:
            dataset: The header.
            except_keywords: Attributes whose values are no secret.
        """
        return cls(_identity_words(dataset, except_keywords))

    def is_in(self, text: str) -> bool:
        """Return whether a text holds one of the words."""
        return self._pattern is not None and bool(self._pattern.search(text.casefold()))


def _is_harmless(element: DataElement, identity: Identity) -> bool:
    """Return whether a value that stays holds no word of the patient's identity."""
    if element.VR not in _TEXT_VRS:
        return True
    text = _text(element)
    if element.VR in {"DS", "IS"}:
        return bool(_NUMBERS.fullmatch(text))
    return not any(
        identity.is_in(part) for part in text.split("\\") if part.strip() not in DEFINED_TERMS
    )


def _text(element: DataElement) -> str:
    values = element.value if isinstance(element.value, MultiValue) else [element.value]
    return "\\".join("" if one is None else str(one) for one in values)


def _identity_words(dataset: Dataset, except_keywords: frozenset[str]) -> Iterator[str]:
    for tag in sorted(dataset.keys()):
        with suppress(Exception):
            element = dataset[tag]
            if element.VR == "SQ":
                for item in element.value or ():
                    yield from _identity_words(item, except_keywords)
            elif element.VR == "PN":
                for word in _WORD.findall(_text(element)):
                    if len(word) >= _NAMES_MIN_CHARACTERS or ord(word[0]) >= _ASCII_MAX:
                        yield word
            elif element.keyword in _IDENTIFIERS - except_keywords:
                for text in _text(element).split("\\"):
                    if len(text.strip()) >= _IDENTIFIERS_MIN_CHARACTERS:
                        yield text.strip()


def _code(value: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue = value
    code.CodingSchemeDesignator = "DCM"
    code.CodeMeaning = meaning
    return code


def _options(keep: frozenset[str]) -> Sequence[str]:
    """Return which options of the profile were used, by what stays."""
    return list(dict.fromkeys(["profile", *map(_option_of, sorted(keep))]))


def _option_of(keyword: str) -> str:
    if keyword in _CHARACTERISTICS:
        return "characteristics"
    if keyword in _DEVICES:
        return "device"
    if keyword in _INSTITUTIONS:
        return "institution"
    return "dates" if dictionary_VR(keyword) in _DATE_VRS else "descriptions"
