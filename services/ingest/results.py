"""The result of storing one file."""

import logging
import secrets
import traceback
from dataclasses import dataclass, replace
from enum import StrEnum

from services.dicom.header import InstanceHeader
from services.errors import Error, FileRejected, OrthancError, OrthancRefused
from services.orthanc.identifiers import OrthancIds


class StoreStatus(StrEnum):
    """The outcomes; the last three have an error."""

    STORED = "STORED"
    ALREADY_STORED = "ALREADY_STORED"
    CONFLICT = "CONFLICT"
    """Another file with the same UIDs is stored; it is kept."""
    REJECTED = "REJECTED"
    """The file can't be stored; sending it again does not help."""
    FAILED = "FAILED"
    """The file could not be stored now; it can be sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreResult:
    """The result of one DICOM file; members of archives are named "archive.zip/member".

    Attributes:
        frame_count: Frames of the stored instance that can be shown.
        header: Of the file as it is stored, with the requested patient; None if the file could not
            be read.
        ids: Orthanc's identifiers of the instance; None unless it is stored and indexed.
        error: None for STORED and ALREADY_STORED.
    """

    file_name: str
    status: StoreStatus
    frame_count: int = 0
    header: InstanceHeader | None = None
    ids: OrthancIds | None = None
    error: Error | None = None

    @property
    def instance_id(self) -> str | None:
        """Orthanc's id of the instance that is stored."""
        return self.ids.instance if self.ids else None

    @property
    def study_id(self) -> str | None:
        """Orthanc's id of its study."""
        return self.ids.study if self.ids else None


_log = logging.getLogger(__name__)

_NOT_PUSHED = "Failed to upload to Orthanc PACS. {} The file was not stored; send it again then."
_NOT_INDEXED = (
    "The file is stored in Orthanc PACS, but could not be indexed yet. It will appear without "
    "further action; sending it again does no harm."
)
_IN_ORTHANC_ONLY = "The file is stored in Orthanc PACS, but could not be indexed."
_CONFLICT = "Another file with the same SOPInstanceUID is stored already; that one stays."


def refused(file_name: str, error: Error, status: StoreStatus) -> StoreResult:
    """Make the result of a file that is not stored.

    The traceback of the error is dropped, because it would keep all local variables of every stack
    frame: with 40,000 results the garbage collector stopped the process for seconds.
    """
    _drop_tracebacks(error)
    return StoreResult(file_name=file_name, status=status, error=error)


def _drop_tracebacks(error: BaseException) -> None:
    pending: list[BaseException | None] = [error]
    seen: set[int] = set()
    while pending:
        one = pending.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            one.__traceback__ = None
            pending += [one.__cause__, one.__context__]


def failed(file_name: str, exc: Exception, *, is_in_orthanc: bool = False) -> StoreResult:
    """Make the result of a file that was not stored because of any error."""
    match exc:
        case FileRejected() | OrthancRefused():
            return refused(file_name, exc, StoreStatus.REJECTED)
        case OrthancError():
            error = _with_message(exc, _NOT_PUSHED.format(exc.message))
            return refused(file_name, error, StoreStatus.FAILED)
        case Error():
            return refused(file_name, exc, StoreStatus.FAILED)
    return refused(file_name, _unexpected(exc, is_in_orthanc=is_in_orthanc), StoreStatus.FAILED)


def not_indexed(file_name: str, header: InstanceHeader, error: Error) -> StoreResult:
    """Make the result of a file that Orthanc has and that is not indexed."""
    return replace(
        refused(file_name, _with_message(error, _NOT_INDEXED), StoreStatus.FAILED), header=header
    )


def conflicting(file_name: str, header: InstanceHeader, ids: OrthancIds) -> StoreResult:
    """Make the result of a file with the UIDs of another stored file."""
    return StoreResult(
        file_name=file_name,
        status=StoreStatus.CONFLICT,
        header=header,
        ids=ids,
        error=FileRejected("CONTENT_CONFLICT", _CONFLICT),
    )


def _unexpected(exc: Exception, *, is_in_orthanc: bool) -> Error:
    """Log the class and place of an error, but not its message, which may quote the file."""
    reference = secrets.token_hex(8)
    place = traceback.extract_tb(exc.__traceback__)[-1]
    kind = type(exc).__name__
    _log.error("Unexpected %s %s at %s:%s", kind, reference, place.name, place.lineno)
    message = _IN_ORTHANC_ONLY if is_in_orthanc else "This file could not be stored."
    return Error(f"{message} Reference for the log: {reference}.")


def _with_message(error: Error, message: str) -> Error:
    """Return an error of the same class with another message, caused by the given one."""
    replaced = type(error)(message, detail=error.detail or error.message)
    replaced.__cause__ = error
    return replaced
