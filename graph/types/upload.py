"""What became of the files that were sent."""

import logging
from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Annotated, Any

import strawberry

from graph.context import Info
from services.errors import Error
from services.ingest.progress import UploadCounts
from services.ingest.results import StoreResult, StoreStatus
from services.query.turns import CooperativeExecution

if TYPE_CHECKING:
    from graph.types.instance import Instance
    from graph.types.study import Study

_log = logging.getLogger(__name__)

strawberry.enum(
    StoreStatus,
    name="UploadStatus",
    description="STORED: it is new. ALREADY_STORED: the same content was there. CONFLICT: other "
    "content is stored under the same UIDs and stays. REJECTED: the file itself is at fault. "
    "FAILED: a server is at fault; send the file again.",
)

_FAILURES = frozenset({StoreStatus.CONFLICT, StoreStatus.REJECTED, StoreStatus.FAILED})


def _code(name: str, description: str) -> Any:  # noqa: ANN401  # Strawberry's value
    return strawberry.enum_value(name, description=description)


@strawberry.enum(description="Why a file was not stored: all reasons there are.")
class UploadErrorCode(Enum):
    """All codes of files that are not stored."""

    NOT_DICOM = _code("NOT_DICOM", "It is no DICOM file.")
    EMPTY_FILE = _code("EMPTY_FILE", "It has no bytes.")
    TRUNCATED = _code("TRUNCATED", "It was cut off: copy it again from its source.")
    MALFORMED = _code("MALFORMED", "It is damaged.")
    UNSUPPORTED_TRANSFER_SYNTAX = _code(
        "UNSUPPORTED_TRANSFER_SYNTAX", "It is encoded in a way that is not read here."
    )
    MISSING_UID = _code("MISSING_UID", "It lacks a UID of its study, its series or itself.")
    INVALID_UID = _code("INVALID_UID", "One of its UIDs is no UID.")
    TOO_MANY_ELEMENTS = _code("TOO_MANY_ELEMENTS", "Its header is larger than any device writes.")
    TOO_MANY_ITEMS = _code("TOO_MANY_ITEMS", "Its sequences or its pixels have too many items.")
    NESTED_TOO_DEEP = _code("NESTED_TOO_DEEP", "Its sequences are nested too deep.")
    PATIENT_MISMATCH = _code(
        "PATIENT_MISMATCH", "`patientID` is stored with another name: see `confirmPatient`."
    )
    INFLATES_TOO_FAR = _code("INFLATES_TOO_FAR", "It unpacks to more than is allowed.")
    CONTENT_CONFLICT = _code("CONTENT_CONFLICT", "Other content is stored under its UIDs.")
    DAMAGED_ARCHIVE = _code("DAMAGED_ARCHIVE", "It is a damaged ZIP, or a member of one.")
    EMPTY_ARCHIVE = _code("EMPTY_ARCHIVE", "It is a ZIP without files.")
    ARCHIVE_TOO_LARGE = _code(
        "ARCHIVE_TOO_LARGE", "It is a ZIP with too many members, bytes, or too high compression."
    )
    NESTED_ARCHIVE = _code("NESTED_ARCHIVE", "It is an archive inside an archive.")
    ENCRYPTED = _code("ENCRYPTED", "It is a member with a password.")
    LIMIT_EXCEEDED = _code("LIMIT_EXCEEDED", "It, or its record, is larger than is allowed.")
    FILE_UNREADABLE = _code("FILE_UNREADABLE", "It could not be kept: the server's disk is full.")
    PACS_DISABLED = _code("PACS_DISABLED", "This server stores no files.")
    DATABASE_UNAVAILABLE = _code("DATABASE_UNAVAILABLE", "MongoDB does not answer.")
    ORTHANC_ERROR = _code("ORTHANC_ERROR", "Orthanc answered something unexpected.")
    ORTHANC_UNAVAILABLE = _code("ORTHANC_UNAVAILABLE", "Orthanc does not answer.")
    ORTHANC_OUTCOME_UNKNOWN = _code(
        "ORTHANC_OUTCOME_UNKNOWN", "Orthanc's answer broke off: send the file again."
    )
    ORTHANC_AUTHENTICATION_FAILED = _code(
        "ORTHANC_AUTHENTICATION_FAILED", "Orthanc does not let this server in."
    )
    ORTHANC_NOT_FOUND = _code("ORTHANC_NOT_FOUND", "It was deleted a moment ago.")
    ORTHANC_REFUSED = _code("ORTHANC_REFUSED", "Orthanc does not take this file.")
    ORTHANC_FULL = _code("ORTHANC_FULL", "Orthanc has no room left.")
    INTERNAL_ERROR = _code("INTERNAL_ERROR", "The server's log knows more: see the message.")

    @classmethod
    def of(cls, code: str) -> "UploadErrorCode":
        """Return the value of a code; `INTERNAL_ERROR` for one that no file should have."""
        try:
            return cls(code)
        except ValueError:
            _log.exception("%s is no code of a file", code)
            return cls.INTERNAL_ERROR


@strawberry.type(description="Why a file was not stored.")
class UploadError:
    """A reason, for programs and for people."""

    code: UploadErrorCode = strawberry.field(description="For programs.")
    message: str = strawberry.field(description="A sentence for a person.")

    @classmethod
    def of(cls, error: Error) -> "UploadError":
        """Show an error."""
        return cls(code=UploadErrorCode.of(error.code), message=error.message)


@strawberry.type(description="The outcome of one DICOM file.")
class UploadResult:
    """One file's outcome."""

    file_name: str = strawberry.field(
        description="As it was sent; members of archives as `archive.zip/member`."
    )
    status: StoreStatus = strawberry.field(description="What became of the file.")
    frame_count: int = strawberry.field(description="Frames that can be shown; 0 when not stored.")
    error: UploadError | None = strawberry.field(description="Null for STORED and ALREADY_STORED.")
    instance_id: strawberry.Private[str | None]

    @classmethod
    def of(cls, result: StoreResult) -> "UploadResult":
        """Make it of the service's result."""
        error = result.error
        return cls(
            file_name=result.file_name,
            status=result.status,
            frame_count=result.frame_count,
            error=None if error is None else UploadError.of(error),
            instance_id=result.instance_id,
        )

    @strawberry.field(
        description="The instance that is stored now; for CONFLICT the one that was there first."
    )
    async def instance(
        self, info: Info
    ) -> Annotated["Instance", strawberry.lazy("graph.types.instance")] | None:
        """Load the instance."""
        from graph.types.instance import Instance  # noqa: PLC0415  # loaded with the schema

        if self.instance_id is None:
            return None
        stored = await info.context.loaders.instance_by_id.load(self.instance_id)
        if stored is None:
            return None
        info.context.show([stored], "Instance")
        return Instance.from_stored(stored)


@strawberry.type(description="The outcome of an upload.")
class UploadDicomPayload:
    """All results of one upload."""

    results: list[UploadResult] = strawberry.field(
        description="One per DICOM file, in the order sent; archives stand for their members."
    )
    stored_count: int = strawberry.field(description="How many are new.")
    already_stored_count: int = strawberry.field(description="How many were there before.")
    failed_count: int = strawberry.field(description="CONFLICT, REJECTED and FAILED together.")
    study_ids: strawberry.Private[tuple[str, ...]]

    @classmethod
    async def of(cls, results: Sequence[StoreResult]) -> "UploadDicomPayload":
        """Make it of the service's results, in turns: an archive may have ten thousands."""
        statuses = [result.status for result in results]
        touched = dict.fromkeys(
            result.study_id for result in results if result.study_id and result.error is None
        )
        return cls(
            results=await CooperativeExecution().map(UploadResult.of, results),
            stored_count=statuses.count(StoreStatus.STORED),
            already_stored_count=statuses.count(StoreStatus.ALREADY_STORED),
            failed_count=sum(status in _FAILURES for status in statuses),
            study_ids=tuple(study_id for study_id in touched if study_id),
        )

    @strawberry.field(description="The studies that the stored files belong to, each once.")
    async def studies(
        self, info: Info
    ) -> list[Annotated["Study", strawberry.lazy("graph.types.study")]]:
        """Load the studies."""
        from graph.types.study import Study  # noqa: PLC0415  # loaded with the schema

        found = await info.context.loaders.study_by_id.load_many(self.study_ids)
        studies = [stored for stored in found if stored is not None]
        info.context.show(studies, "Study")
        return [Study.from_stored(stored) for stored in studies]


@strawberry.type(
    description="How many files of an upload have come how far; kept for an hour. An archive "
    "counts as its members when it is opened."
)
class UploadProgress:
    """The counts of an upload."""

    received: int = strawberry.field(description="Files in complete requests.")
    checked: int = strawberry.field(
        description="Files that were read and then brought into Orthanc or refused."
    )
    stored: int = strawberry.field(description="Files that are stored and indexed, new or not.")
    failed: int = strawberry.field(description="CONFLICT, REJECTED and FAILED together.")

    @classmethod
    def of(cls, counts: UploadCounts) -> "UploadProgress":
        """Show counts."""
        return cls(
            received=counts.received,
            checked=counts.checked,
            stored=counts.stored,
            failed=counts.failed,
        )
