"""Orthanc's identifiers, computed as Orthanc computes them (its class `DicomInstanceHasher`)."""

import hashlib
import re
from dataclasses import dataclass

_ORTHANC_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}", re.ASCII)


def is_orthanc_id(value: str) -> bool:
    """Tell whether a value has the form of an Orthanc identifier: 5 dashed groups of 8 hex."""
    return _ORTHANC_ID.fullmatch(value) is not None


@dataclass(frozen=True, slots=True)
class OrthancIds:
    """The identifiers of an instance and of its parents."""

    patient: str
    study: str
    series: str
    instance: str


def orthanc_ids(
    patient_id: str, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
) -> OrthancIds:
    """Compute the identifiers that Orthanc gives an instance and its parents.

    Args:
        patient_id: PatientID without padding, `""` when absent.
        study_instance_uid: StudyInstanceUID without padding.
        series_instance_uid: SeriesInstanceUID without padding.
        sop_instance_uid: SOPInstanceUID without padding.
    """
    study = f"{patient_id}|{study_instance_uid}"
    series = f"{study}|{series_instance_uid}"
    return OrthancIds(
        patient=_dashed_sha1(patient_id),
        study=_dashed_sha1(study),
        series=_dashed_sha1(series),
        instance=_dashed_sha1(f"{series}|{sop_instance_uid}"),
    )


def _dashed_sha1(text: str) -> str:
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))
