"""What a caller may ask of an anonymisation or a modification, checked before a job is started."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from pydicom.config import RAISE
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.valuerep import validate_value

from services.anonymization.profile import may_be_kept
from services.dicom.patient_override import validate_override
from services.errors import InvalidInput

_KEYWORDS_MAX = 100
_VALUE_MAX_CHARACTERS = 1024
_SETTABLE_VRS = frozenset(
    {"AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UT"}
)
"""VRs that a text can be written as."""

_STRUCTURE = frozenset(
    {
        "SpecificCharacterSet", "Modality", "NumberOfFrames", "PhotometricInterpretation",
        "PixelSpacing", "ImagePositionPatient", "ImageOrientationPatient", "RescaleSlope",
        "RescaleIntercept", "RescaleType", "PatientIdentityRemoved", "DeidentificationMethod",
        "BurnedInAnnotation", "LossyImageCompression", "ImagerPixelSpacing",
    }
)  # fmt: skip
"""Attributes that say how pixels are to be read, or what was done to a file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AnonymizationOptions:
    """How a study is anonymised.

    Attributes:
        patient_id: Written as PatientID; None: a pseudonym of the patient.
        patient_name: Written as PatientName; None: the same as the PatientID.
        keep: Keywords that stay.
        replace: New values by keyword.
        confirm_burned_in: Images that show text about the patient, or may do so, are stored all the
            same: somebody has looked at them.
    """

    patient_id: str | None = None
    patient_name: str | None = None
    keep: Sequence[str] = ()
    replace: Mapping[str, str] = field(default_factory=dict)
    confirm_burned_in: bool = False

    def check(self) -> None:
        """Check what a caller gave.

        Raises:
            InvalidInput: With the argument that is at fault.
        """
        validate_override(self.patient_id or None, self.patient_name or None)
        _check_number("input.keep", self.keep)
        for keyword in self.keep:
            if not may_be_kept(keyword):
                message = (
                    f"{_shown(keyword)} can't stay: only dates, ages, codes, descriptions and the "
                    "make of the device may. Names, identifiers and UIDs never do."
                )
                raise InvalidInput(message, argument="input.keep")
        check_values(self.replace, argument="input.replace", patient="patientID or patientName")

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Self:
        """Read what `to_parameters` wrote."""
        return cls(**parameters)

    def to_parameters(self) -> dict[str, Any]:
        """Return what a job stores."""
        return {
            "patient_id": self.patient_id,
            "patient_name": self.patient_name,
            "keep": sorted(set(self.keep)),
            "replace": dict(self.replace),
            "confirm_burned_in": self.confirm_burned_in,
        }


def check_values(values: Mapping[str, str], *, argument: str, patient: str | None = None) -> None:
    """Check new values of attributes.

    Args:
        values: By keyword.
        argument: Of the API, for the error.
        patient: Which arguments give PatientID and PatientName instead; None: these are allowed.

    Raises:
        InvalidInput: An attribute can't be set, or a value is not valid for its VR (PS3.5 6.2).
    """
    _check_number(argument, values)
    for keyword, value in values.items():
        if patient is not None and keyword in {"PatientID", "PatientName"}:
            raise InvalidInput(f"Give {keyword} as {patient}.", argument=argument)
        vr = settable_vr(keyword)
        if vr is None:
            message = f"{_shown(keyword)} can't be set: give keywords of texts, dates and numbers."
            raise InvalidInput(message, argument=argument)
        if len(value) > _VALUE_MAX_CHARACTERS:
            message = f"{keyword}: at most {_VALUE_MAX_CHARACTERS} characters."
            raise InvalidInput(message, argument=argument)
        try:
            for part in [value] if vr in {"LT", "ST", "UT"} else value.split("\\"):
                validate_value(vr, part, RAISE)
        except ValueError as exc:
            # The library's message quotes the value.
            message = f"{keyword}: that is no valid value of VR {vr}."
            raise InvalidInput(message, argument=argument) from exc


def settable_vr(keyword: str) -> str | None:
    """Return the VR of an attribute that may be set; None for others."""
    tag = tag_for_keyword(keyword)
    if tag is None or tag >> 16 < 0x0008 or keyword in _STRUCTURE:  # noqa: PLR2004  # below are meta and command elements
        return None
    vr = dictionary_VR(tag)
    return vr if vr in _SETTABLE_VRS else None


def _check_number(argument: str, keywords: Iterable[str]) -> None:
    if len(list(keywords)) > _KEYWORDS_MAX:
        raise InvalidInput(f"{argument}: at most {_KEYWORDS_MAX}.", argument=argument)


def _shown(keyword: str) -> str:
    """Return a keyword for a message; what is none is not quoted."""
    return keyword if keyword.isidentifier() and tag_for_keyword(keyword) else "That keyword"
