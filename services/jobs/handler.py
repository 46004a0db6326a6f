"""What a domain writes to have jobs of its own: a handler for each kind.

A job is a document in MongoDB (`models.job`). Of all processes, the one that holds the lease runs
all jobs; when it dies, another takes over within 15 s and begins its jobs again. So a handler must
be able to begin in the middle:

1. Before it does anything that must not be done twice, it stores what it is about to do, or what it
   has done, with `await job.save({...})`; the next attempt finds it as `job.checkpoint`.
2. Or it looks at the world: which instances are there already. That is often simpler and is what
   `retryJob` needs as well: an attempt after a failure has the checkpoint of the one before and
   does only what is missing.

Errors:

- Of one instance: `job.fail(uid, error)`, and go on. A run that returns with failures ends PARTIAL,
  or FAILED when nothing was completed; neither is repeated by itself.
- Of the whole job: raise an `Error`. When `error.may_pass` it is attempted again, up to
  JOB_ATTEMPTS times; otherwise the job is FAILED at once.
- `raise JobPostponed(error, seconds)`: not now. It is queued again, shows the error meanwhile and
  counts no attempt: for a peer that is down while there is all the time in the world.
- Anything else that is raised is a defect: logged with its traceback, attempted again, and shown as
  `INTERNAL_ERROR`.

Cancellation: the task of `run` is cancelled, within a second of `cancelJob` in whichever process.
`run` may catch `asyncio.CancelledError` to tell a peer, and must raise it again within
`CANCEL_SECONDS`. It can't tell why it was cancelled (`cancelJob`, the end of the server, a lost
lease), and must not remove what the next attempt could use. That is what `discard` is for: it is
called when a job is CANCELLED, or FAILED for good, also when the process that ran it has died.

Texts: messages of errors are shown to whoever started the job and hold no patient data, address or
credential. `job.parameters` and `job.checkpoint` are never shown.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from models import DicomErrorRecord, JobFailureRecord, JobKind
from models.job import CommitmentState, JobDocument, JobScope
from services.auth.roles import Principal, Role
from services.auth.scope import Scope
from services.errors import DatabaseUnavailable, Error, ModalityError, OrthancUnavailable

CANCEL_SECONDS = 10.0
"""A run that was cancelled ends within this time, or is cancelled once more."""

FAILURES_MAX = 100
"""Failures of instances that a job keeps; all are counted."""


class JobError(Error):
    """Why a job, or one instance of it, failed; subclasses have codes of their own.

    Attributes:
        may_pass: Whether trying again later may help.
        dimse_status: Status of a peer (PS3.7 C), as `A801`; None when there was none.
    """

    code = "JOB_FAILED"
    default_message = "The job failed."
    may_pass: bool = False
    dimse_status: str | None = None


class JobPostponed(Exception):
    """Not now: the job is queued again, and no attempt is counted.

    Args:
        error: Shown while it waits.
        seconds: How long it waits.
    """

    def __init__(self, error: Error, seconds: float) -> None:
        super().__init__(error.message)
        self.error = error
        self.seconds = seconds


def may_pass(error: Exception) -> bool:
    """Return whether trying again later may help against an error."""
    if isinstance(error, JobError | ModalityError):
        return error.may_pass
    if isinstance(error, Error):
        return isinstance(error, OrthancUnavailable | DatabaseUnavailable)
    return True


def error_record(error: Exception) -> DicomErrorRecord:
    """Return an error as it is stored; of a defect only that there was one."""
    known = error if isinstance(error, Error) else Error()
    status = known.dimse_status if isinstance(known, JobError | ModalityError) else None
    return DicomErrorRecord(code=known.code, message=known.message, dimse_status=status)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A job to start.

    Attributes:
        kind: Says which handler runs it.
        parameters: For the handler; what BSON can store.
        orthanc_study_ids: What it is about, by Orthanc's identifiers.
        study_instance_uids: The same by UID, also of studies that are not here yet.
        modality: Name of the modality that it talks to. It is its lane as well.
        lane: Of all jobs of one lane, one runs at a time; None: that of the modality, if any.
        once: Key of what must not be done twice at the same time. While a job with this key is
            active, it is answered instead of a new one.
        total: Instances in all, when that is known already.
    """

    kind: JobKind
    parameters: Mapping[str, Any] = field(default_factory=dict)
    orthanc_study_ids: Sequence[str] = ()
    study_instance_uids: Sequence[str] = ()
    modality: str | None = None
    lane: str | None = None
    once: str | None = None
    total: int | None = None


class RunningJob:
    """A job while it runs: what its handler reads, and where it reports.

    What is counted here is written to MongoDB twice a second and at the end; `save` writes at once.

    Args:
        document: As it was when the attempt began.
        write: Stores fields of the document, by their attribute names.
    """

    def __init__(
        self, document: JobDocument, write: Callable[[Mapping[str, Any]], Awaitable[None]]
    ) -> None:
        self._write = write
        self._changes: dict[str, Any] = {}
        self._writing = asyncio.Lock()
        self.id = document.id
        self.kind = document.kind
        self.parameters: Mapping[str, Any] = document.parameters
        self.checkpoint: Mapping[str, Any] = document.checkpoint
        self.modality = document.modality
        self.orthanc_study_ids: Sequence[str] = tuple(document.orthanc_study_ids)
        self.study_instance_uids: Sequence[str] = tuple(document.study_instance_uids)
        self.result_study_ids: Sequence[str] = tuple(document.result_study_ids)
        self.attempt = document.attempts
        """From 1."""
        self.created_by = document.created_by
        self.role = Role[document.role.upper()]
        self.created_at = document.created_at
        self.scope = scope_of(document.scope)
        self.correlation_id = document.correlation_id
        self.total = document.total
        self.completed = 0
        self.failed = 0
        self.warnings = 0
        self._failures: list[JobFailureRecord] = []

    @property
    def principal(self) -> Principal:
        """Who started it, within the scope of that time, and never an administrator."""
        return Principal(name=self.created_by, role=Role.UPLOADER, scope=self.scope)

    def progress(
        self,
        *,
        total: int | None = None,
        completed: int | None = None,
        failed: int | None = None,
        warnings: int | None = None,
    ) -> None:
        """Set counts of instances; None leaves one as it is.

        Each attempt begins with 0; one that goes on where another ended counts what is done already
        as completed. `fail` counts failures itself: set `failed` only where a peer gives a number
        and no UIDs.
        """
        given = {"total": total, "completed": completed, "failed": failed, "warnings": warnings}
        for name, value in given.items():
            if value is not None:
                setattr(self, name, value)
                self._changes[name] = value

    def advance(self, count: int = 1) -> None:
        """Count instances as completed."""
        self.progress(completed=self.completed + count)

    def fail(self, sop_instance_uid: str | None, error: Exception) -> None:
        """Count an instance as failed, and keep its error when it is one of the first 100.

        Args:
            sop_instance_uid: Of the instance; None when it is unknown.
            error: An `Error`; of any other only that it was an internal one is kept.
        """
        if len(self._failures) < FAILURES_MAX:
            record = JobFailureRecord(sop_instance_uid=sop_instance_uid, error=error_record(error))
            self._failures.append(record)
            self._changes["failures"] = self.failures
        self.progress(failed=self.failed + 1)

    @contextmanager
    def counted(self, sop_instance_uid: str) -> Iterator[None]:
        """Count an instance as completed, or as failed with its error.

        Raises:
            Error: It may pass: the whole job is tried again.
        """
        try:
            yield
        except Error as exc:
            if may_pass(exc):
                raise
            self.fail(sop_instance_uid, exc)
        else:
            self.advance()

    @property
    def failures(self) -> list[dict[str, Any]]:
        """The failures that are kept, for a checkpoint."""
        return [one.model_dump(by_alias=True) for one in self._failures]

    def restore_failures(self, count: int, failures: Sequence[Mapping[str, Any]]) -> None:
        """Count failures of an attempt before, which this one does not try again.

        Args:
            count: How many.
            failures: Those that were kept.
        """
        self._failures = [JobFailureRecord.model_validate(one) for one in failures]
        self._changes["failures"] = self.failures
        self.progress(failed=count)

    def add_results(self, *orthanc_study_ids: str) -> None:
        """Add studies that came of it, by Orthanc's identifiers; each counts once."""
        self.result_study_ids = tuple(dict.fromkeys([*self.result_study_ids, *orthanc_study_ids]))
        self._changes["result_study_ids"] = list(self.result_study_ids)

    def set_commitment(self, state: CommitmentState) -> None:
        """Set what the peer says about keeping what was sent."""
        self._changes["commitment"] = state

    async def save(self, checkpoint: Mapping[str, Any]) -> None:
        """Store a checkpoint, and everything that was reported, before returning.

        Args:
            checkpoint: Replaces the one before; at most a few MB.

        Raises:
            JobLost: Another process runs this job now; stop.
            DatabaseUnavailable: MongoDB does not answer.
        """
        self.checkpoint = checkpoint
        self._changes["checkpoint"] = dict(checkpoint)
        await self.flush()

    async def flush(self) -> None:
        """Store what was reported; errors are those of `save`."""
        async with self._writing:
            changes, self._changes = self._changes, {}
            if not changes:
                return
            try:
                await self._write(changes)
            except BaseException:
                self._changes = {**changes, **self._changes}
                raise


class JobLost(Error):
    """Another process runs this job now, or it was removed."""

    code = "JOB_LOST"
    default_message = "Another process has taken over this job."


def scope_of(scope: JobScope) -> Scope:
    """Return the scope in which a job was started."""
    return Scope(
        study_ids=None if scope.study_ids is None else frozenset(scope.study_ids),
        labels=None if scope.labels is None else frozenset(scope.labels),
    )


class JobHandler(Protocol):
    """Runs the jobs of one kind. One object serves all of them, several at the same time."""

    kind: ClassVar[JobKind]

    async def run(self, job: RunningJob) -> None:
        """Do the job, or what is missing of it.

        Returning means that it is done: SUCCEEDED, or PARTIAL or FAILED when instances failed.

        Raises:
            Error: The job failed; see above.
            JobPostponed: It waits.
        """
        ...

    async def discard(self, job: RunningJob) -> None:
        """Remove what a job that ends CANCELLED or FAILED left half done.

        It may run again after a crash, so what is gone already is fine. What it reports is stored.

        Raises:
            Error: It is tried again later when the error may pass.
        """
        ...
