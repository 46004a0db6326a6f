"""Which files may show or hold the patient's identity in what no header tells."""

from services.dicom.elements import Elements
from services.jobs.handler import JobError

_SOP_CLASS_UID = 0x00080016
_IMAGE_TYPE = 0x00080008
_MODALITY = 0x00080060
_CONVERSION_TYPE = 0x00080064
_BURNED_IN_ANNOTATION = 0x00280301
_RECOGNIZABLE_FEATURES = 0x00280302

INSPECTED_TAGS = frozenset(
    {
        _SOP_CLASS_UID,
        _IMAGE_TYPE,
        _MODALITY,
        _CONVERSION_TYPE,
        _BURNED_IN_ANNOTATION,
        _RECOGNIZABLE_FEATURES,
    }
)
"""What `fault_of` looks at."""

_STANDARD_ROOT = "1.2.840.10008."
_RAW_DATA = "1.2.840.10008.5.1.4.1.1.66"
_ENCAPSULATED = "1.2.840.10008.5.1.4.1.1.104."
_SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
_MODALITIES_WITH_TEXT = frozenset({"ES", "GM", "IVUS", "OT", "SC", "US", "XC"})
"""Modalities whose devices usually write the patient's name into the picture, or show people."""


class BurnedInAnnotation(JobError):
    """The pixels of an image show the patient's name, or may do so."""

    code = "BURNED_IN_ANNOTATION"
    default_message = (
        "The pixels of this image show text about the patient, or may do so. Look at it; where "
        "there is none, repeat with confirmBurnedIn: true."
    )


class NotAnonymizable(JobError):
    """A file holds what can't be read: a document, or data in a private format."""

    code = "NOT_ANONYMIZABLE"
    default_message = (
        "Encapsulated documents, raw data and private formats can't be anonymized: this file is "
        "left out."
    )


def fault_of(elements: Elements) -> JobError | None:
    """Return why a file may give the patient away although its header is clean.

    BurnedInAnnotation (PS3.3 C.7.6.1.1.7) decides where it is there. Without it, secondary captures
    and modalities that write text into pictures count as burned in.

    Args:
        elements: Those of `INSPECTED_TAGS`.
    """
    sop_class = elements.text(_SOP_CLASS_UID) or ""
    is_private = not sop_class.startswith(_STANDARD_ROOT)
    if is_private or sop_class == _RAW_DATA or sop_class.startswith(_ENCAPSULATED):
        return NotAnonymizable()
    if _flag(elements, _BURNED_IN_ANNOTATION) == "YES":
        return BurnedInAnnotation()
    if _flag(elements, _RECOGNIZABLE_FEATURES) == "YES":
        return BurnedInAnnotation("The pixels of this image can be recognized as a person.")
    if _flag(elements, _BURNED_IN_ANNOTATION) == "NO":
        return None
    image_type = (elements.text(_IMAGE_TYPE) or "").upper()
    is_captured = (
        sop_class == _SECONDARY_CAPTURE
        or sop_class.startswith(f"{_SECONDARY_CAPTURE}.")
        or _CONVERSION_TYPE in elements
        or "SCREEN" in image_type
    )
    modality = _flag(elements, _MODALITY)
    return BurnedInAnnotation() if is_captured or modality in _MODALITIES_WITH_TEXT else None


def _flag(elements: Elements, tag: int) -> str:
    return (elements.text(tag) or "").strip().upper()
