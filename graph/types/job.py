"""Jobs: long work in the background."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Self

import strawberry

from graph.context import Info
from graph.relay import Node, encode_node_id
from graph.types.dicom_error import DicomError
from graph.types.modality import Modality
from graph.types.study import Study
from models import JobDocument, JobFailureRecord, JobKind, JobState
from models.job import CommitmentState
from services.auth.roles import Role
from services.exports.service import TO_FOLDER
from services.frames.signing import SignedPath
from services.orthanc.answers import JobInfo as StoredOrthancJob

# Arguments take the enumerations from here: they are described below.
__all__ = ["Job", "JobFailure", "JobKind", "JobState", "OrthancJob"]

strawberry.enum(
    JobKind,
    description="RETRIEVE: studies of another archive are fetched. SEND: studies are sent to one. "
    "ANONYMIZE: a copy without identity is made. MODIFY: a copy with other values is made. "
    "EXPORT: studies are packed for download. BACKUP and VERIFY_BACKUP: of this server.",
)
strawberry.enum(
    JobState,
    description="QUEUED: it waits for its turn or for `nextAttemptAt`. PARTIAL: some instances "
    "were done and some were not. CANCELLING: it was cancelled and is being ended.",
)
strawberry.enum(
    CommitmentState,
    description="Whether a peer confirms that it keeps what was sent to it (PS3.4 J). UNANSWERED: "
    "it did not answer in time.",
)


@strawberry.type(description="An instance that a job could not handle.")
class JobFailure:
    """A failure of one instance."""

    sop_instance_uid: str | None = strawberry.field(
        name="sopInstanceUID", description="SOPInstanceUID (0008,0018); null when it is unknown."
    )
    error: DicomError = strawberry.field(description="Why.")

    @classmethod
    def of(cls, record: JobFailureRecord) -> Self:
        """Show a failure."""
        return cls(sop_instance_uid=record.sop_instance_uid, error=DicomError.of(record.error))


@strawberry.type(
    description="Long work in the background. Poll `job`, or follow `jobEvents`. A job is kept for "
    "30 days after its end unless the server is set otherwise."
)
class Job(Node):
    """One job."""

    kind: JobKind = strawberry.field(description="What it does.")
    state: JobState = strawberry.field(description="How far it is.")
    total: int | None = strawberry.field(
        description="Instances in all; null while that is unknown."
    )
    completed: int = strawberry.field(description="Instances that are done, with a warning or not.")
    failed: int = strawberry.field(description="Instances that failed.")
    warnings: int = strawberry.field(description="Instances that were done with a warning.")
    error: DicomError | None = strawberry.field(
        description="Why it FAILED, or why the attempt before did; null when nothing went wrong as "
        "a whole."
    )
    failures: list[JobFailure] = strawberry.field(
        description="At most 100 of the instances that failed, each with its reason."
    )
    commitment: CommitmentState | None = strawberry.field(
        description="Storage commitment of a SEND; null when none was asked for."
    )
    attempts: int = strawberry.field(
        description="How often it was begun since it was started or retried."
    )
    next_attempt_at: datetime | None = strawberry.field(
        description="When it is tried again; null when it is not waiting for that."
    )
    created_at: datetime = strawberry.field(description="When it was started by its caller.")
    started_at: datetime | None = strawberry.field(
        description="When its last attempt began; null before the first."
    )
    finished_at: datetime | None = strawberry.field(
        description="When it ended; null while it has not."
    )
    job_id: strawberry.Private[str]
    is_to_folder: strawberry.Private[bool]
    starter: strawberry.Private[str]
    study_ids: strawberry.Private[Sequence[str]]
    result_ids: strawberry.Private[Sequence[str]]
    modality_name: strawberry.Private[str | None]

    @classmethod
    def of(cls, job: JobDocument) -> Self:
        """Show a job."""
        return cls(
            id=encode_node_id("Job", job.id),
            kind=job.kind,
            state=job.state,
            total=job.total,
            completed=job.completed,
            failed=job.failed,
            warnings=job.warnings,
            error=None if job.error is None else DicomError.of(job.error),
            failures=[JobFailure.of(one) for one in job.failures],
            commitment=job.commitment,
            attempts=job.attempts,
            next_attempt_at=job.next_attempt_at,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
            job_id=job.id,
            is_to_folder=job.kind is JobKind.EXPORT and bool(job.parameters.get(TO_FOLDER)),
            starter=job.created_by,
            study_ids=job.orthanc_study_ids,
            result_ids=job.result_study_ids,
            modality_name=job.modality,
        )

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Show a job as MongoDB returns it."""
        return cls.of(JobDocument.model_validate(stored))

    @strawberry.field(
        description="How much of it is done, 0 to 1; null while that can't be told. Show "
        "a bar that moves without a figure then."
    )
    def fraction(self) -> float | None:
        """Divide what is done by all."""
        if self.state is JobState.SUCCEEDED:
            return 1.0
        if not self.total:
            return None
        return min(1.0, (self.completed + self.failed) / self.total)

    @strawberry.field(
        description="Who started it: the name of a token, or `oidc:` with the provider's subject; "
        "null for callers who neither did so nor are administrators."
    )
    def created_by(self, info: Info) -> str | None:
        """Return the name where the caller may know it."""
        principal = info.context.principal
        if principal is None:
            return None
        is_known = principal.role >= Role.ADMIN or principal.name == self.starter
        return self.starter if is_known else None

    @strawberry.field(
        description="The modality that it fetches from or sends to; null for other jobs, and when "
        "it was removed."
    )
    async def modality(self, info: Info) -> Modality | None:
        """Find the modality."""
        if self.modality_name is None or not info.context.scope.is_all:
            return None
        found = await info.context.runtime.modalities.find(self.modality_name)
        return None if found is None else Modality.of(found)

    @strawberry.field(
        description="A signed URL of a finished EXPORT as ZIP, valid until `urlExpiresAt`: ask "
        "again for a new one. It works in a link, with no header and no cookie. Null for other "
        "jobs, while it is not finished, and when one of its studies is gone or out of the "
        "caller's reach."
    )
    async def url(self, info: Info) -> str | None:
        """Mint the URL."""
        signed = await self._signed(info)
        if signed is None:
            return None
        info.context.accesses.minted["Job.url"] += 1
        return info.context.base_url + signed.path

    @strawberry.field(
        description="Name of the folder in EXPORT_FOLDER that `exportToFolder` writes, for "
        "administrators; null for others and for other jobs. It is there when the job has ended."
    )
    def folder(self, info: Info) -> str | None:
        """Return the name of the folder."""
        principal = info.context.principal
        is_admin = principal is not None and principal.role >= Role.ADMIN
        return self.job_id if self.is_to_folder and is_admin else None

    @strawberry.field(description="When `url` ends; null where there is none.")
    async def url_expires_at(self, info: Info) -> datetime | None:
        """Return when the URL ends."""
        signed = await self._signed(info)
        return None if signed is None else signed.expires_at

    async def _signed(self, info: Info) -> SignedPath | None:
        context = info.context
        is_finished = self.state in {JobState.SUCCEEDED, JobState.PARTIAL}
        if self.kind is not JobKind.EXPORT or not is_finished or self.finished_at is None:
            return None
        context.require_download()
        # Labels may have been taken away since it was prepared.
        found = await context.loaders.study_by_id.load_many(list(self.study_ids))
        studies = [stored for stored in found if stored is not None]
        if len(studies) < len(self.study_ids):
            return None
        context.accesses.add(studies, "Study")
        return context.runtime.exports.urls.path(
            self.job_id, self.finished_at, now=context.now(), grant=context.grant
        )

    @strawberry.field(description="The studies that it is about; deleted ones are left out.")
    async def studies(
        self, info: Info
    ) -> list[Annotated["Study", strawberry.lazy("graph.types.study")]]:
        """Load the studies."""
        return await _studies(info, self.study_ids)

    @strawberry.field(
        description="What came of it: the studies that were fetched or made; deleted ones are left "
        "out. While it runs, those so far."
    )
    async def results(
        self, info: Info
    ) -> list[Annotated["Study", strawberry.lazy("graph.types.study")]]:
        """Load the results."""
        return await _studies(info, self.result_ids)


async def _studies(info: Info, study_ids: Sequence[str]) -> list[Study]:
    context = info.context
    context.count_nodes(len(study_ids))
    found = await context.loaders.study_by_id.load_many(list(study_ids))
    studies = [stored for stored in found if stored is not None]
    context.accesses.add(studies, "Study")
    return [Study.from_stored(stored) for stored in studies]


@strawberry.type(
    description="A job of Orthanc itself. Its content holds PatientIDs and is not shown."
)
class OrthancJob:
    """One job of Orthanc."""

    id: str = strawberry.field(description="Orthanc's identifier of it.")
    type: str = strawberry.field(description="Orthanc's name of what it does.")
    state: str = strawberry.field(
        description="`Pending`, `Running`, `Success`, `Failure`, `Paused` or `Retry`."
    )
    progress: int = strawberry.field(description="0 to 100.")
    created_at: datetime = strawberry.field(description="When it was created.")
    error_code: int = strawberry.field(description="Orthanc's code of its error; 0: none.")
    error_message: str | None = strawberry.field(
        description="Orthanc's description of that code; null when there is no error."
    )

    @classmethod
    def of(cls, job: StoredOrthancJob) -> Self:
        """Show a job of Orthanc."""
        return cls(
            id=job.id,
            type=job.type,
            state=job.state,
            progress=job.progress,
            created_at=job.created_at,
            error_code=job.error_code,
            error_message=job.error_message,
        )
