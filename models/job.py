"""Jobs: long work in the background, with its progress and its outcome."""

from datetime import datetime
from enum import StrEnum
from typing import Any, ClassVar

from pydantic import Field
from pymongo import ASCENDING, DESCENDING, IndexModel

from models.dicom_error import DicomErrorRecord
from models.stored import NamedDocument, NamedModel


class JobKind(StrEnum):
    """What a job does."""

    RETRIEVE = "RETRIEVE"
    SEND = "SEND"
    ANONYMIZE = "ANONYMIZE"
    MODIFY = "MODIFY"
    EXPORT = "EXPORT"
    BACKUP = "BACKUP"
    VERIFY_BACKUP = "VERIFY_BACKUP"


class JobState(StrEnum):
    """How far a job is."""

    QUEUED = "QUEUED"
    """It waits for its turn, or for `next_attempt_at`."""
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    """Somebody cancelled it, and its runner has not ended it yet."""
    SUCCEEDED = "SUCCEEDED"
    PARTIAL = "PARTIAL"
    """Some instances were done and some were not."""
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


ACTIVE_STATES = (JobState.QUEUED, JobState.RUNNING, JobState.CANCELLING)


class CommitmentState(StrEnum):
    """What a peer says about keeping what was sent to it (PS3.4 J)."""

    PENDING = "PENDING"
    COMMITTED = "COMMITTED"
    FAILED = "FAILED"
    UNANSWERED = "UNANSWERED"


class JobFailureRecord(NamedModel):
    """One instance that a job could not handle."""

    sop_instance_uid: str | None = None
    error: DicomErrorRecord


class JobScope(NamedModel):
    """The scope (`services.auth.scope`) in which a job was started; None: no limit."""

    study_ids: list[str] | None = None
    labels: list[str] | None = None


class JobDocument(NamedDocument):
    """A job; `_id` is 16 random hex digits. MongoDB drops it at `expires_at`."""

    kind: JobKind
    state: JobState
    parameters: dict[str, Any] = Field(default_factory=dict)
    """What its handler was asked to do. It may hold patient data and is never shown."""
    checkpoint: dict[str, Any] = Field(default_factory=dict)
    """What its handler has done so far, for the next attempt. Never shown either."""
    lane: str | None = None
    """Of all jobs of one lane, one runs at a time; None: no such limit."""
    key: str | None = None
    """What must not be done twice at the same time; None: no such limit."""
    once: str | None = None
    """`key` while the job is active, absent when it has ended: of all jobs one has it."""
    modality: str | None = None
    """Name of the modality that it fetches from or sends to."""

    orthanc_study_ids: list[str] = Field(default_factory=list)
    """What it is about, by Orthanc's identifiers."""
    study_instance_uids: list[str] = Field(default_factory=list)
    """The same by StudyInstanceUID, also of studies that are not here yet."""
    result_study_ids: list[str] = Field(default_factory=list)
    """What came of it, by Orthanc's identifiers."""

    total: int | None = None
    """Instances in all; None while that is unknown."""
    completed: int = 0
    failed: int = 0
    warnings: int = 0
    error: DicomErrorRecord | None = None
    failures: list[JobFailureRecord] = Field(default_factory=list)
    """The first 100."""
    commitment: CommitmentState | None = None

    attempts: int = 0
    """How often it was begun since it was started or retried."""
    next_attempt_at: datetime | None = None
    runner: int | None = None
    """Token of the lease of the process that runs it."""
    created_at: datetime
    started_at: datetime | None = None
    finished_at: datetime | None = None
    expires_at: datetime | None = None
    created_by: str
    """Name of the principal who started it."""
    role: str
    """Role that this principal had, in lower case."""
    seen_by: list[str] = Field(default_factory=list)
    """Names of the principals who may follow it: who started it, and who asked for the same."""
    scope: JobScope = Field(default_factory=JobScope)
    correlation_id: str
    """Of the request that started it, as in the log and the audit trail."""

    class Settings:
        """Collection and indexes."""

        name = "jobs"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("createdAt", DESCENDING), ("_id", DESCENDING)]),
            IndexModel([("seenBy", ASCENDING), ("createdAt", DESCENDING), ("_id", DESCENDING)]),
            IndexModel([("state", ASCENDING), ("createdAt", ASCENDING)]),
            IndexModel([("state", ASCENDING), ("createdBy", ASCENDING), ("createdAt", ASCENDING)]),
            IndexModel([("orthancStudyIds", ASCENDING), ("createdAt", DESCENDING)]),
            IndexModel([("resultStudyIds", ASCENDING), ("createdAt", DESCENDING)]),
            IndexModel([("studyInstanceUIDs", ASCENDING), ("createdAt", DESCENDING)]),
            IndexModel([("modality", ASCENDING), ("createdAt", DESCENDING)]),
            IndexModel([("once", ASCENDING)], unique=True, sparse=True),
            IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0, sparse=True),
        ]
