"""What the sender of a file is told that is not stored, or not as usual."""

import logging
import secrets
import traceback
from dataclasses import replace

from services.dicom.header import InstanceHeader
from services.errors import Error, FileRejected, OrthancError, OrthancRefused
from services.ingest.results import StoreResult, StoreStatus
from services.orthanc.identifiers import OrthancIds

_log = logging.getLogger(__name__)

_NOT_PUSHED = "Failed to upload to Orthanc PACS. {} The file was not stored; send it again then."
_NOT_INDEXED = (
    "The file is stored in Orthanc PACS, but could not be indexed yet. It appears by itself; "
    "sending it again does no harm."
)
_IN_ORTHANC_ONLY = "The file is stored in Orthanc PACS, but could not be indexed."
_CONFLICT = "Another file with the same SOPInstanceUID is stored already; that one stays."


def refused(file_name: str, error: Error, status: StoreStatus) -> StoreResult:
    """Make the result of a file that is not stored."""
    return StoreResult(file_name=file_name, status=status, error=error)


def failed(file_name: str, exc: Exception, *, is_in_orthanc: bool = False) -> StoreResult:
    """Make the result of a file that was not stored because of an error, whichever it is."""
    match exc:
        case FileRejected() | OrthancRefused():
            return refused(file_name, exc, StoreStatus.REJECTED)
        case OrthancError():
            told = _said(exc, _NOT_PUSHED.format(exc.message))
            return refused(file_name, told, StoreStatus.FAILED)
        case Error():
            return refused(file_name, exc, StoreStatus.FAILED)
    return refused(file_name, _unexpected(exc, is_in_orthanc=is_in_orthanc), StoreStatus.FAILED)


def not_indexed(file_name: str, header: InstanceHeader, error: Error) -> StoreResult:
    """Make the result of a file that Orthanc has and the index not."""
    return replace(
        refused(file_name, _said(error, _NOT_INDEXED), StoreStatus.FAILED), header=header
    )


def conflicting(file_name: str, header: InstanceHeader, ids: OrthancIds) -> StoreResult:
    """Make the result of a file whose UIDs are those of another that is stored."""
    return StoreResult(
        file_name=file_name,
        status=StoreStatus.CONFLICT,
        header=header,
        ids=ids,
        error=FileRejected("CONTENT_CONFLICT", _CONFLICT),
    )


def _unexpected(exc: Exception, *, is_in_orthanc: bool) -> Error:
    """Log what went wrong and where, but not its message: it may quote the file."""
    reference = secrets.token_hex(8)
    place = traceback.extract_tb(exc.__traceback__)[-1]
    kind = type(exc).__name__
    _log.error("Unexpected %s %s at %s:%s", kind, reference, place.name, place.lineno)
    told = _IN_ORTHANC_ONLY if is_in_orthanc else "This file could not be stored."
    return Error(f"{told} Reference for the log: {reference}.")


def _said(error: Error, message: str) -> Error:
    """Return an error of the same kind, with what its caller should know."""
    told = type(error)(message, detail=error.detail or error.message)
    told.__cause__ = error
    return told
