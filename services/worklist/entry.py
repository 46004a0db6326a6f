"""What a planned examination says, checked before scanners get it (PS3.5 6.2, PS3.4 K.6.1.2.2)."""

import dataclasses
import re
import secrets
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pydicom.uid import generate_uid

from models import WorklistEntryDocument
from models.names import contract_name
from services.dicom.person_names import clean_person_name
from services.dicom.values import clean_identifier, clean_text
from services.errors import InvalidInput

_UID = re.compile(r"(?:0|[1-9]\d*)(?:\.(?:0|[1-9]\d*))+", re.ASCII)
"""PS3.5 9.1: unlike UIDs that are read, one that is given to a scanner must be correct."""
_UID_MAX_CHARACTERS = 64
_CODE_STRING = re.compile(r"[A-Z0-9_][A-Z0-9_ ]{0,15}", re.ASCII)
_AE_TITLE = re.compile(r"[\x20-\x5b\x5d-\x7e]{1,16}", re.ASCII)
_SEXES = frozenset({"M", "F", "O"})
"""PS3.3 C.2.2: the only values of PatientSex."""

_SHORT_CHARACTERS = 16
"""Of SH (PS3.5 6.2)."""
_LONG_CHARACTERS = 64
"""Of LO, and of each component group of PN (PS3.5 6.2)."""
_NAME_GROUPS = 3
_NAME_COMPONENTS = 5

_ID_BYTES = 6
"""Of identifiers that are made here: 14 characters with their prefix."""

_FORBIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
"""Unicode categories that no text of one line holds (PS3.5 6.1.2.5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryValues:
    """What is planned, by DICOM keyword; dates and times in ISO 8601.

    A UID and IDs that are None are made for a new entry, and stay as they are for one that changes.
    """

    accession_number: str
    patient_id: str
    issuer_of_patient_id: str | None = None
    patient_name: str
    patient_birth_date: str | None = None
    patient_sex: str | None = None
    study_instance_uid: str | None = None
    referring_physician_name: str | None = None
    requested_procedure_id: str | None = None
    requested_procedure_description: str | None = None
    modality: str
    scheduled_station_ae_title: str | None = None
    scheduled_procedure_step_id: str | None = None
    scheduled_procedure_step_start_date: str
    scheduled_procedure_step_start_time: str | None = None
    scheduled_procedure_step_description: str | None = None
    scheduled_performing_physician_name: str | None = None


def checked(values: EntryValues) -> EntryValues:
    """Return values as they are stored: without padding, empty ones as None.

    Raises:
        InvalidInput: One is missing, too long, or has characters that DICOM does not allow there;
            `argument` names it.
    """
    cleaned = {
        field.name: _checked(field.name, getattr(values, field.name))
        for field in dataclasses.fields(values)
    }
    for field in dataclasses.fields(values):
        if field.default is dataclasses.MISSING and cleaned[field.name] is None:
            raise _invalid(field.name, "must not be empty")
    return EntryValues(**cleaned)  # type: ignore[arg-type]  # required ones are not None


def with_identifiers(
    values: EntryValues, kept: WorklistEntryDocument | None = None
) -> dict[str, Any]:
    """Return checked values by their Python names, with the identifiers that are None filled in.

    Args:
        values: As `checked` returns them.
        kept: The entry that changes and keeps its identifiers; None: make them. For another patient
            the StudyInstanceUID is a new one: a scanner that has the entry already makes images of
            the former patient under the former UID.
    """
    made: dict[str, Callable[[], str]] = {
        "study_instance_uid": lambda: str(generate_uid(prefix=None)),
        "requested_procedure_id": lambda: _new_id("RP"),
        "scheduled_procedure_step_id": lambda: _new_id("SP"),
    }
    fields = dataclasses.asdict(values)
    for name, make in made.items():
        if fields[name] is None:
            fields[name] = make() if kept is None else getattr(kept, name)
    if kept is not None and values.study_instance_uid is None and _is_other(values, kept):
        fields["study_instance_uid"] = made["study_instance_uid"]()
    return fields


def _is_other(values: EntryValues, kept: WorklistEntryDocument) -> bool:
    issuers = {values.issuer_of_patient_id, kept.issuer_of_patient_id} - {None}
    return values.patient_id != kept.patient_id or len(issuers) > 1


def _new_id(prefix: str) -> str:
    return prefix + secrets.token_hex(_ID_BYTES).upper()


def _checked(name: str, text: str | None) -> str | None:
    if text is None:
        return None
    if "\\" in text or any(unicodedata.category(one) in _FORBIDDEN for one in text):
        raise _invalid(name, "must not contain backslashes, line breaks or control characters")
    cleaned = clean_identifier(text) if name == "patient_id" else clean_text(text)
    if not cleaned:
        return None
    return _CHECKS.get(name, _as_it_is)(name, cleaned)


def _as_it_is(_name: str, text: str) -> str:
    return text


def _short(name: str, text: str) -> str:
    return _at_most(_SHORT_CHARACTERS, name, text)


def _long(name: str, text: str) -> str:
    return _at_most(_LONG_CHARACTERS, name, text)


def _at_most(characters: int, name: str, text: str) -> str:
    if len(text) > characters:
        raise _invalid(name, f"may have at most {characters} characters")
    return text


def _person_name(name: str, text: str) -> str | None:
    groups = text.split("=")
    if len(groups) > _NAME_GROUPS or any(len(one) > _LONG_CHARACTERS for one in groups):
        raise _invalid(name, "may have three groups (=) of at most 64 characters")
    if any(group.count("^") >= _NAME_COMPONENTS for group in groups):
        raise _invalid(name, "may have five components (^) in each group")
    return clean_person_name(text)


def _uid(name: str, text: str) -> str:
    if len(text) > _UID_MAX_CHARACTERS or _UID.fullmatch(text) is None:
        raise _invalid(name, "is not a UID: at most 64 digits and dots, as 1.2.840.113619.2")
    return text


def _code(name: str, text: str) -> str:
    code = text.upper()
    if _CODE_STRING.fullmatch(code) is None:
        raise _invalid(name, "is not a code as CT: 1 to 16 of A-Z, 0-9, space and _")
    return code


def _sex(name: str, text: str) -> str:
    if text.upper() not in _SEXES:
        raise _invalid(name, "is M, F or O")
    return text.upper()


def _ae_title(name: str, text: str) -> str:
    if _AE_TITLE.fullmatch(text) is None:
        raise _invalid(name, "is not an AE title: 1 to 16 ASCII characters without backslash")
    return text


_CHECKS: dict[str, Callable[[str, str], str | None]] = {
    "accession_number": _short,
    "patient_id": _long,
    "issuer_of_patient_id": _long,
    "patient_name": _person_name,
    "patient_sex": _sex,
    "study_instance_uid": _uid,
    "referring_physician_name": _person_name,
    "requested_procedure_id": _short,
    "requested_procedure_description": _long,
    "modality": _code,
    "scheduled_station_ae_title": _ae_title,
    "scheduled_procedure_step_id": _short,
    "scheduled_procedure_step_description": _long,
    "scheduled_performing_physician_name": _person_name,
}


def _invalid(name: str, why: str) -> InvalidInput:
    public = contract_name(name)
    return InvalidInput(f"{public} {why}.", argument=f"input.{public}")
