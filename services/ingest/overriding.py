"""Another patient for files that are stored: what their header says then."""

from dataclasses import dataclass, replace
from typing import Self

from services.dicom.header import InstanceHeader
from services.dicom.values import clean_person_name, clean_text


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
