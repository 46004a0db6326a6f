"""Retrieval of instances (PS3.4 C.4.2, C.4.3): C-GET on the own association, C-MOVE to Orthanc."""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import StoragePresentationContexts, build_role, evt
from pynetdicom.association import Association
from pynetdicom.presentation import PresentationContext
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from services.errors import ModalityError
from services.modalities import faults
from services.modalities.association import (
    CANCELLED,
    SUCCESS,
    Link,
    associated,
    is_pending,
)
from services.modalities.attributes import identifier_of
from services.modalities.query import RemoteInstance, context_of

GET = StudyRootQueryRetrieveInformationModelGet
MOVE = StudyRootQueryRetrieveInformationModelMove

_MESSAGE_ID = 1
_CONTEXTS_MAX = 128
"""Of one association: their identifiers are odd numbers up to 255 (PS3.8 9.3.2.2)."""

_UIDS_OF_REQUEST = 100
"""Instances of one request: a list of UIDs is a value of 6.5 kB."""

_RESPONSE_BYTES_MAX = 16 * 1024 * 1024
"""Of one response: it may name 100,000 instances that were not transferred."""

_WARNING = 0xB000

_COMPRESSED = (
    "1.2.840.10008.1.2.4.50",
    "1.2.840.10008.1.2.4.51",
    "1.2.840.10008.1.2.4.57",
    "1.2.840.10008.1.2.4.70",
    "1.2.840.10008.1.2.4.80",
    "1.2.840.10008.1.2.4.81",
    "1.2.840.10008.1.2.4.90",
    "1.2.840.10008.1.2.4.91",
    "1.2.840.10008.1.2.5",
    "1.2.840.10008.1.2.1.99",
    "1.2.840.10008.1.2.4.201",
    "1.2.840.10008.1.2.4.202",
    "1.2.840.10008.1.2.4.203",
    "1.2.840.10008.1.2.4.100",
    "1.2.840.10008.1.2.4.101",
    "1.2.840.10008.1.2.4.102",
    "1.2.840.10008.1.2.4.103",
    "1.2.840.10008.1.2.2",
)
"""Each has a context of its own, so that a file comes as it is stored there: JPEG, JPEG lossless,
JPEG-LS, JPEG 2000, RLE, deflated, HTJ2K, MPEG, big endian."""


@dataclass(frozen=True, slots=True)
class Request:
    """What one C-GET or C-MOVE asks for.

    Attributes:
        keys: UIDs by keyword; several are joined by a backslash.
        level: `STUDY`, `SERIES` or `IMAGE`.
    """

    level: str
    keys: dict[str, str]

    def identifier(self) -> Dataset:
        """Return the identifier (PS3.4 C.4.2.1.4)."""
        return identifier_of({"QueryRetrieveLevel": self.level, **self.keys})


def plan_requests(
    study_instance_uid: str,
    listed: Sequence[RemoteInstance],
    missing: Collection[str],
    *,
    is_whole: bool,
) -> list[Request]:
    """Return the fewest requests that fetch what is missing, and nothing else.

    Args:
        study_instance_uid: Of the study.
        listed: What the modality has of it.
        missing: SOPInstanceUIDs of what is not here.
        is_whole: Whether `listed` is the whole study.
    """
    study = {"StudyInstanceUID": study_instance_uid}
    if is_whole and len(missing) == len(listed):
        return [Request("STUDY", study)] if missing else []
    requests = []
    sizes = Counter(one.series_instance_uid for one in listed)
    wanted: dict[str, list[str]] = {}
    for one in listed:
        if one.sop_instance_uid in missing:
            wanted.setdefault(one.series_instance_uid, []).append(one.sop_instance_uid)
    for series_uid, uids in wanted.items():
        series = {**study, "SeriesInstanceUID": series_uid}
        if len(uids) == sizes[series_uid]:
            requests.append(Request("SERIES", series))
            continue
        for begin in range(0, len(uids), _UIDS_OF_REQUEST):
            some = "\\".join(uids[begin : begin + _UIDS_OF_REQUEST])
            requests.append(Request("IMAGE", {**series, "SOPInstanceUID": some}))
    return requests


@dataclass(slots=True)
class Outcome:
    """What a modality said about its sub-operations.

    Attributes:
        failed_uids: SOPInstanceUIDs that it could not transfer.
        status: Of the last response that was no success; None: all were.
        was_cancelled: It stopped before it had done everything.
    """

    failed_uids: set[str] = field(default_factory=set)
    status: int | None = None
    was_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class SubOperations:
    """Counts of a response (PS3.7 9.1.3); None where it does not say."""

    remaining: int | None
    completed: int
    failed: int
    warnings: int


Report = Callable[[SubOperations], None]


def move(link: Link, requests: Sequence[Request], destination: str, report: Report) -> Outcome:
    """Have a modality send instances to another application; blocks.

    Args:
        link: With whom.
        requests: What it sends.
        destination: AE title of who gets it; it must be known there.
        report: Called with the counts of each response.

    Raises:
        ModalityError: It did not do it at all, and why.
    """
    with associated(
        link, [context_of(MOVE)], what="C-MOVE", message_bytes_max=_RESPONSE_BYTES_MAX
    ) as association:
        outcome = Outcome()
        for request in requests:
            responses = association.send_c_move(
                request.identifier(), destination, query_model=MOVE, msg_id=_MESSAGE_ID
            )
            with _cancellable(link, association, MOVE):
                _follow(link, responses, report, outcome)
        return outcome


def get(
    link: Link,
    requests: Sequence[Request],
    sop_classes: Collection[str],
    store: Callable[[Path, str], int],
    report: Report,
    *,
    file_bytes_max: int,
) -> Outcome:
    """Fetch instances on the association itself; blocks.

    Args:
        link: With whom.
        requests: What is fetched.
        sop_classes: Of the instances; empty when they are unknown.
        store: Called with a DICOM file and its SOPInstanceUID; returns the status that the
            modality gets (PS3.4 B.2.3). The file is deleted afterwards.
        report: Called with the counts of each response.
        file_bytes_max: A modality that sends a larger one is left.

    Raises:
        ModalityUnsupported: It offers no C-GET, or none for these SOP classes.
        ModalityError: It did not do it at all, and why.
    """

    def take(event: evt.Event) -> int:
        request: Any = event.request
        path = event.dataset_path
        request._dataset_file.close()  # noqa: SLF001  # tests/test_private_interfaces.py
        try:
            with link.busy():
                return store(path, str(request.AffectedSOPInstanceUID))
        finally:
            path.unlink(missing_ok=True)

    classes = sorted(set(sop_classes)) or [
        str(context.abstract_syntax) for context in StoragePresentationContexts
    ]
    contexts = [context_of(GET), *_storage_contexts(classes[: _CONTEXTS_MAX - 1])]
    roles = [build_role(UID(uid), scp_role=True) for uid in classes[: _CONTEXTS_MAX - 1]]
    with associated(
        link,
        contexts,
        what="C-GET",
        handlers=[(evt.EVT_C_STORE, take)],
        negotiation=roles,
        message_bytes_max=file_bytes_max,
    ) as association:
        accepted = association.accepted_contexts
        takes = any(one.abstract_syntax != GET and one.as_scp for one in accepted)
        if not takes or all(one.abstract_syntax != GET for one in accepted):
            raise faults.unsupported(link.peer.name, "C-GET for these kinds of objects")
        outcome = Outcome()
        for request in requests:
            responses = association.send_c_get(
                request.identifier(), query_model=GET, msg_id=_MESSAGE_ID
            )
            with _cancellable(link, association, GET):
                _follow(link, responses, report, outcome)
        return outcome


def _storage_contexts(classes: Sequence[str]) -> Iterator[PresentationContext]:
    """Propose each class in native encodings, and as many compressed ones as there is room for."""
    room = (_CONTEXTS_MAX - 1) // max(1, len(classes)) - 1
    for uid in classes:
        for syntaxes in (
            (ExplicitVRLittleEndian, ImplicitVRLittleEndian),
            *((one,) for one in _COMPRESSED[: max(0, room)]),
        ):
            context = PresentationContext()
            context.abstract_syntax = UID(uid)
            context.transfer_syntax = [UID(one) for one in syntaxes]
            yield context


def _follow(
    link: Link,
    responses: Iterator[tuple[Dataset, Dataset | None]],
    report: Report,
    outcome: Outcome,
) -> None:
    for response, identifier in responses:
        status = link.status(response)
        counts = _counts(response)
        report(counts)
        if is_pending(status):
            continue
        failed = _failed_uids(identifier)
        outcome.failed_uids |= failed
        if status == CANCELLED:
            outcome.was_cancelled = True
        elif status != SUCCESS:
            outcome.status = status
            did_nothing = not counts.completed and not counts.warnings
            if did_nothing and not failed and status != _WARNING:
                raise faults.refused(link.peer.name, status)


@contextmanager
def _cancellable(link: Link, association: Association, model: str) -> Iterator[None]:
    [context] = [one for one in association.accepted_contexts if one.abstract_syntax == model]
    with link.operation(_MESSAGE_ID, context.context_id or 0):
        yield


def _counts(response: Dataset) -> SubOperations:
    def count(keyword: str) -> int | None:
        value: Any = response.get(keyword)
        return None if value is None else int(value)

    return SubOperations(
        remaining=count("NumberOfRemainingSuboperations"),
        completed=count("NumberOfCompletedSuboperations") or 0,
        failed=count("NumberOfFailedSuboperations") or 0,
        warnings=count("NumberOfWarningSuboperations") or 0,
    )


def _failed_uids(identifier: Dataset | None) -> set[str]:
    listed: Any = None if identifier is None else identifier.get("FailedSOPInstanceUIDList")
    if not listed:
        return set()
    return {str(listed)} if isinstance(listed, str) else {str(uid) for uid in listed}


def not_transferred(name: str, status: int | None) -> ModalityError:
    """Describe an instance that a modality names as failed."""
    if status is None:
        return ModalityError(f"{name} could not transfer it; its log says why.")
    return faults.refused(name, status)
