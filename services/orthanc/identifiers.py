"""Orthanc's identifiers, computed as Orthanc computes them (its class `DicomInstanceHasher`)."""

import hashlib
import re
from dataclasses import dataclass

from services.errors import OrthancError

_ORTHANC_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{8}){4}", re.ASCII)


def is_orthanc_id(value: str) -> bool:
    """Return whether a value has the form of an Orthanc identifier: 5 dashed groups of 8 hex."""
    return _ORTHANC_ID.fullmatch(value) is not None


def path_of(collection: str, resource_id: str, below: str = "") -> str:
    """Return the path of a resource in Orthanc's REST API.

    Args:
        collection: `patients`, `studies`, `series` or `instances`.
        resource_id: Orthanc's identifier, checked for its form before it becomes part of a path.
        below: What follows, without a slash in front.

    Raises:
        OrthancError: That is no identifier.
    """
    if not is_orthanc_id(resource_id):
        raise OrthancError("That is not an Orthanc identifier.")
    return f"/{collection}/{resource_id}" + (f"/{below}" if below else "")


@dataclass(frozen=True, slots=True)
class OrthancIds:
    """The identifiers of an instance and of its parents.

    Attributes:
        patient: One for all padded forms of a PatientID, see `orthanc_patient_id`. Orthanc itself
            may have several patients of it, to which study, series and instance belong.
    """

    patient: str
    study: str
    series: str
    instance: str


def orthanc_patient_id(patient_id: str) -> str:
    """Compute the identifier that Orthanc gives a patient.

    Args:
        patient_id: PatientID without padding, `""` when absent.
    """
    return _dashed_sha1(patient_id)


def orthanc_ids(
    patient_id: str, study_instance_uid: str, series_instance_uid: str, sop_instance_uid: str
) -> OrthancIds:
    """Compute the identifiers that Orthanc gives an instance and its parents.

    Args:
        patient_id: PatientID without spaces at its end, `""` when absent.
        study_instance_uid: StudyInstanceUID without padding.
        series_instance_uid: SeriesInstanceUID without padding.
        sop_instance_uid: SOPInstanceUID without padding.
    """
    study = f"{patient_id}|{study_instance_uid}"
    series = f"{study}|{series_instance_uid}"
    return OrthancIds(
        patient=orthanc_patient_id(patient_id),
        study=_dashed_sha1(study),
        series=_dashed_sha1(series),
        instance=_dashed_sha1(f"{series}|{sop_instance_uid}"),
    )


def _dashed_sha1(text: str) -> str:
    digest = hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest()
    return "-".join(digest[start : start + 8] for start in range(0, 40, 8))
