"""What a STOW-RS request answers: one item per file (PS3.18 10.5.3, I.2)."""

from collections.abc import Iterable, Sequence
from http import HTTPStatus
from typing import Any

from services.dicomweb.attributes import Model
from services.errors import DatabaseUnavailable, FileRejected, OrthancFull, OrthancUnavailable
from services.ingest.results import StoreResult, StoreStatus

OTHER_STUDY = "OTHER_STUDY"
"""Code of a file whose study is not that of the path."""

_PROCESSING_FAILURE = 0x0110
_DUPLICATE_INSTANCE = 0x0111
_OUT_OF_RESOURCES = 0xA700
_WRONG_STUDY = 0xA900
_CANNOT_UNDERSTAND = 0xC000
"""FailureReason (PS3.4 B.2.3, PS3.7 C)."""

_STORED = {StoreStatus.STORED, StoreStatus.ALREADY_STORED}


def other_study(file_name: str) -> StoreResult:
    """Make the result of a file whose study is not that of the path."""
    error = FileRejected(OTHER_STUDY, "This file is not of the study that the address names.")
    return StoreResult(file_name=file_name, status=StoreStatus.REJECTED, error=error)


def store_status(results: Sequence[StoreResult]) -> HTTPStatus:
    """Return the status of an answer (PS3.18 table 10.5.3-1)."""
    stored = sum(result.status in _STORED for result in results)
    if stored == len(results):
        return HTTPStatus.OK
    if stored:
        return HTTPStatus.ACCEPTED
    if all(
        isinstance(result.error, OrthancUnavailable | DatabaseUnavailable) for result in results
    ):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.CONFLICT


def store_response(results: Iterable[StoreResult], root: str) -> Model:
    """Write the answer in the DICOM JSON model.

    Args:
        results: Of all files.
        root: Address of the service.

    Returns:
        ReferencedSOPSequence (0008,1199) of what is stored and FailedSOPSequence (0008,1198) of the
        others, each only where it has items; RetrieveURL (0008,1190) of the study where there is
        only one.
    """
    stored, failed, studies = [], [], set()
    for result in results:
        item = _references(result)
        if result.status in _STORED and result.header is not None:
            study = f"{root}/studies/{result.header.study.study_instance_uid}"
            studies.add(study)
            series = f"{study}/series/{result.header.series.series_instance_uid}"
            address = f"{series}/instances/{result.header.sop_instance_uid}"
            stored.append(item | {"00081190": {"vr": "UR", "Value": [address]}})
        else:
            failed.append(item | {"00081197": {"vr": "US", "Value": [failure_reason(result)]}})
    model: Model = {}
    if len(studies) == 1:
        model["00081190"] = {"vr": "UR", "Value": list(studies)}
    if failed:
        model["00081198"] = {"vr": "SQ", "Value": failed}
    if stored:
        model["00081199"] = {"vr": "SQ", "Value": stored}
    return model


def failure_reason(result: StoreResult) -> int:
    """Return the FailureReason (0008,1197) of a file that is not stored."""
    if result.status is StoreStatus.CONFLICT:
        return _DUPLICATE_INSTANCE
    if isinstance(result.error, OrthancFull):
        return _OUT_OF_RESOURCES
    if result.error is not None and result.error.code == OTHER_STUDY:
        return _WRONG_STUDY
    return _CANNOT_UNDERSTAND if result.status is StoreStatus.REJECTED else _PROCESSING_FAILURE


def _references(result: StoreResult) -> dict[str, Any]:
    """Return ReferencedSOPClassUID and ReferencedSOPInstanceUID as far as they are known."""
    header = result.header
    if header is None:
        return {}
    uids = {"00081150": header.sop_class_uid, "00081155": header.sop_instance_uid}
    return {tag: {"vr": "UI", "Value": [uid]} for tag, uid in uids.items() if uid}
