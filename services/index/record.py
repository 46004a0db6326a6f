"""What the indexer is given: one SOP instance as Orthanc holds it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from models.names import contract_name
from services.dicom.header import InstanceHeader
from services.dicom.search_words import fold, search_words
from services.orthanc.identifiers import OrthancIds


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexRecord:
    """One stored instance, whether it was uploaded here or found in Orthanc.

    Attributes:
        revision: 8 lower-case hex digits that change when Orthanc's file is replaced.
        file_size_bytes: Size of the stored file, in bytes.
        number_of_frames: Frames that can be shown, 0 when there are none.
        not_renderable_reason: A sentence for a person when `number_of_frames` is 0.
    """

    header: InstanceHeader
    ids: OrthancIds
    revision: str
    file_size_bytes: int
    number_of_frames: int
    not_renderable_reason: str | None


Fields = Mapping[str, Any]
"""A document or a part of one, by stored names."""

_IMAGE_FIELDS = (
    "rows",
    "columns",
    "samples_per_pixel",
    "bits_allocated",
    "bits_stored",
    "pixel_representation",
    "photometric_interpretation",
    "window_center",
    "window_width",
    "voi_lut_function",
    "rescale_slope",
    "rescale_intercept",
    "has_complex_display",
)


def instance_fields(entry: IndexRecord) -> dict[str, Any]:
    """Return all of an instance document but `_id`, `version`, `useOrthancPreview`, `indexedAt`."""
    header = entry.header
    return _by_stored_names(
        orthanc_series_id=entry.ids.series,
        orthanc_study_id=entry.ids.study,
        orthanc_patient_id=entry.ids.patient,
        revision=entry.revision,
        file_size_bytes=entry.file_size_bytes,
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        instance_number=header.instance_number,
        number_of_frames=entry.number_of_frames,
        not_renderable_reason=entry.not_renderable_reason,
        patient_name=header.patient.patient_name,
        patient_birth_date=header.patient.patient_birth_date,
        **{name: getattr(header.image, name) for name in _IMAGE_FIELDS},
    )


def series_fields(entry: IndexRecord) -> dict[str, Any]:
    """Return the attributes of a series as this file says (PS3.3 C.7.3.1)."""
    return _by_stored_names(
        orthanc_study_id=entry.ids.study,
        orthanc_patient_id=entry.ids.patient,
        **asdict(entry.header.series),
    )


def study_fields(entry: IndexRecord) -> dict[str, Any]:
    """Return the attributes of a study and its patient as this file says (PS3.3 C.7.2.1)."""
    header = entry.header
    return _by_stored_names(
        orthanc_patient_id=entry.ids.patient, **asdict(header.patient), **asdict(header.study)
    )


def study_search_fields(study: Fields) -> dict[str, Any]:
    """Derive what filters and orders of studies use from the study's own attributes."""
    name = study.get("patientName")
    date, time = study.get("studyDate"), study.get("studyTime")
    return {
        "nameWords": search_words(name),
        "searchWords": search_words(
            name,
            study.get("patientID"),
            study.get("accessionNumber"),
            study.get("studyDescription"),
        ),
        "orderStudyDate": f"{date}T{time or ''}" if date else "",
        "orderPatientName": fold(name),
    }


def patient_search_fields(patient: Fields) -> dict[str, Any]:
    """Derive what filters and orders of patients use from the patient's name."""
    name = patient.get("patientName")
    return {"nameWords": search_words(name), "orderPatientName": fold(name)}


def to_stored_precision(moment: datetime) -> datetime:
    """Cut a moment to milliseconds, all that BSON keeps, so that it equals what is read back."""
    return moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def _by_stored_names(**attributes: object) -> dict[str, Any]:
    return {contract_name(name): value for name, value in attributes.items()}
