"""Runs jobs, in the one process that holds the lease."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import DicomErrorRecord, JobDocument, JobKind, JobState
from services.audit import OK, Action, Audit, AuditEvent
from services.auth.roles import Principal
from services.auth.withdrawal import Withdrawals
from services.errors import DatabaseUnavailable, Error
from services.index.record import to_stored_precision
from services.jobs.handler import (
    CANCEL_SECONDS,
    JobError,
    JobHandler,
    JobLost,
    JobPostponed,
    RunningJob,
    error_record,
    may_pass,
)
from services.jobs.service import ended_fields
from services.jobs.store import JobStore
from services.observability.metrics import JOBS
from services.sync.lease import LEASE_SECONDS, Lease
from services.tasks import HANGING_SECONDS, Alarm, cancel_and_wait, heartbeat

_log = logging.getLogger(__name__)

RUNNING_JOBS = "run-jobs"
"""Name of the lease."""

_POLL_SECONDS = 1.0
"""Jobs that another process starts or cancels are noticed after this time at the latest."""

_FLUSH_SECONDS = 0.5
"""Pause between two writes of a job's progress."""

_RELEASE_SECONDS = 2.0
"""Longest time to queue a job again while the server stops; without it the next runner does so."""

_RETRY_SECONDS = 10.0
_RETRY_FACTOR = 4.0
_LONGEST_PAUSE_SECONDS = 900.0
"""Pauses between attempts: 10 s, 40 s, 160 s, 640 s, then 15 minutes."""

_DISCARD_ATTEMPTS = 3
_AGAIN_SECONDS = 1.0
"""Pause before a discard, or the end of a job, is tried again."""

_ACTIONS = {
    JobKind.RETRIEVE: Action.RETRIEVE,
    JobKind.SEND: Action.SEND,
    JobKind.ANONYMIZE: Action.ANONYMIZE,
    JobKind.MODIFY: Action.MODIFY,
    JobKind.EXPORT: Action.EXPORT,
    JobKind.BACKUP: Action.BACKUP,
    JobKind.VERIFY_BACKUP: Action.BACKUP,
}


class JobCrashed(JobError):
    """The process that ran a job died, as often as a job may be attempted."""

    code = "JOB_CRASHED"
    default_message = "The server stopped while it ran this job, several times."


class AccessWithdrawn(JobError):
    """Who started a job may do nothing here any more."""

    code = "ACCESS_WITHDRAWN"
    default_message = (
        "The token or share that started this job was revoked. Start it again with another one."
    )


class LeftoversRemain(JobError):
    """What a cancelled or failed job had done could not be removed."""

    code = "LEFTOVERS_REMAIN"
    default_message = (
        "The job ended, and what it had made until then could not be removed. See `results`."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunnerLimits:
    """What the runner may do.

    Attributes:
        concurrency: Jobs that run at once. One of them is never one that talks to a modality, so
            that modalities that hang do not stop everything else.
        attempts_max: Attempts of a job before it has failed.
        retention: How long jobs are kept that have ended.
        retry_seconds: Pause before the second attempt.
        lease_seconds: After so long without a sign of life another process takes over.
    """

    concurrency: int
    attempts_max: int
    retention: timedelta
    retry_seconds: float = _RETRY_SECONDS
    lease_seconds: float = LEASE_SECONDS

    @property
    def modality_concurrency(self) -> int:
        """Jobs with modalities that run at once."""
        return max(1, self.concurrency - 1)


def pause_seconds(attempt: int, first_seconds: float = _RETRY_SECONDS) -> float:
    """Return the pause after a failed attempt; `attempt` is 1-based."""
    return min(first_seconds * _RETRY_FACTOR ** (attempt - 1), _LONGEST_PAUSE_SECONDS)


def state_after(job: RunningJob) -> JobState:
    """Return how a job ends whose run has returned."""
    if not job.failed:
        return JobState.SUCCEEDED
    return JobState.PARTIAL if job.completed else JobState.FAILED


@dataclass(frozen=True, slots=True)
class _End:
    """How a job ends."""

    state: JobState
    error: DicomErrorRecord | None = None


@dataclass(slots=True)
class _Attempt:
    """A job that this process runs or discards."""

    document: JobDocument
    attending: "asyncio.Task[None] | None" = None
    run: "asyncio.Task[None] | None" = None
    is_cancelled: bool = False
    is_lost: bool = False
    cancelled_because: DicomErrorRecord | None = None
    _asked_at: float = 0.0

    def cancel(self, at: float, because: DicomErrorRecord | None) -> None:
        """Cancel the run, and once more when it has not ended for long.

        Args:
            at: Now, in seconds of a clock that never goes back.
            because: What the job shows as its error.
        """
        self.cancelled_because = because
        if self.run is None or (self.is_cancelled and at - self._asked_at < CANCEL_SECONDS):
            return
        self.is_cancelled = True
        self._asked_at = at
        self.run.cancel()

    def lose(self) -> None:
        """End the run: another process has the job."""
        self.is_lost = True
        if self.run is not None:
            self.run.cancel()


class JobRunner:
    """Claims jobs while this process holds the lease, and runs them.

    Args:
        database: Where the jobs are.
        handlers: One for each kind that this process can run.
        audit: Records how jobs end.
        limits: What the runner may do.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        handlers: Sequence[JobHandler],
        audit: Audit,
        limits: RunnerLimits,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = JobStore(database)
        self._handlers = {handler.kind: handler for handler in handlers}
        self._audit = audit
        self._limits = limits
        self._now = now
        self._lease = Lease(
            database,
            RUNNING_JOBS,
            lease_seconds=limits.lease_seconds,
            renew_seconds=limits.lease_seconds / 3,
        )
        self._withdrawals = Withdrawals(database)
        self._due = Alarm()
        self._attempts: dict[str, _Attempt] = {}
        self._last_turn = ""

    @property
    def is_running(self) -> bool:
        """Whether this process is the one that runs the jobs."""
        return self._lease.is_held

    @property
    def running(self) -> int:
        """How many jobs this process runs now."""
        return len(self._attempts)

    def wake(self) -> None:
        """Look for jobs at once."""
        self._due.ring()

    async def run(self) -> None:
        """Run jobs while this process holds the lease, until cancelled."""
        await self._lease.hold(self._work)

    async def _work(self, token: int) -> None:
        try:
            with heartbeat("jobs") as alive:
                while True:
                    alive.beat(_POLL_SECONDS + HANGING_SECONDS)
                    await self._step(token)
                    await self._due.wait(_POLL_SECONDS)
        finally:
            attending = [one.attending for one in self._attempts.values()]
            await cancel_and_wait(*(task for task in attending if task is not None))

    async def _step(self, token: int) -> None:
        """Take over what nobody runs, cancel what somebody cancelled, begin what is due."""
        try:
            if not self._attempts and not await self._store.any_active():
                return
            await self._cancel_withdrawn()
            await self._store.take_over(token, self._handlers, running=self._attempts)
            for document in await self._store.cancelled(token):
                attempt = self._attempts.get(document.id)
                if attempt is None:
                    self._begin(document, token)
                else:
                    attempt.cancel(asyncio.get_running_loop().time(), document.error)
            while (claimed := await self._claimed(token)) is not None:
                self._begin(claimed, token)
        except DatabaseUnavailable as exc:
            _log.warning("jobs wait for MongoDB: %s", exc.detail or exc.message)

    async def _cancel_withdrawn(self) -> None:
        """Cancel the jobs of those who were shut out since they started them."""
        withdrawn = await self._withdrawals.find(await self._store.starters())
        for name, until in withdrawn.items():
            await self._store.cancel_all(name, before=until, error=error_record(AccessWithdrawn()))

    async def _claimed(self, token: int) -> JobDocument | None:
        running = [one.document for one in self._attempts.values()]
        if len(running) >= self._limits.concurrency:
            return None
        with_modality = sum(job.modality is not None for job in running)
        claimed = await self._store.claim(
            token,
            self._handlers,
            busy_lanes=[job.lane for job in running if job.lane is not None],
            with_modality=with_modality < self._limits.modality_concurrency,
            after=self._last_turn,
            now=self._now(),
        )
        if claimed is not None:
            self._last_turn = claimed.created_by
        return claimed

    def _begin(self, document: JobDocument, token: int) -> None:
        attempt = _Attempt(document)
        self._attempts[document.id] = attempt
        attempt.attending = asyncio.create_task(
            self._attend(attempt, token), name=f"job {document.id}"
        )
        attempt.attending.add_done_callback(lambda _: self._forget(attempt))

    def _forget(self, attempt: _Attempt) -> None:
        # Queued again at once, the same job may have its next attempt here already.
        if self._attempts.get(attempt.document.id) is attempt:
            del self._attempts[attempt.document.id]
        self._due.ring()

    async def _attend(self, attempt: _Attempt, token: int) -> None:
        """Run or discard one job, and store how that ended.

        Whatever goes wrong here leaves the job under this token, with nobody to run it: the next
        step takes it over.
        """
        document = attempt.document
        job = RunningJob(document, partial(self._store.write, document.id, token))
        try:
            end = await self._end_of(attempt, job, token)
            if end is not None:
                await self._store_end(job, end, token)
        except JobLost:
            _log.warning("job %s was taken over by another process", document.id)
        except asyncio.CancelledError:
            await self._release(document.id, token)
            raise
        except Exception as exc:  # noqa: BLE001  # no failure may end the runner
            _log_fault("job %s is begun again", document.id, exc)

    async def _end_of(self, attempt: _Attempt, job: RunningJob, token: int) -> _End | None:
        """Run a job; None when it is queued again."""
        handler = self._handlers[job.kind]
        if attempt.document.state is JobState.CANCELLING:
            cancelled = _End(JobState.CANCELLED, attempt.document.error)
            return await self._discarded(handler, job, token, cancelled)
        if job.attempt > self._limits.attempts_max:
            return await self._discarded(handler, job, token, _failed(JobCrashed()))
        fault = await self._run(handler, attempt, job)
        if fault is None:
            return _End(state_after(job))
        if attempt.is_cancelled:
            cancelled = _End(JobState.CANCELLED, attempt.cancelled_because)
            return await self._discarded(handler, job, token, cancelled)
        if isinstance(fault, JobPostponed):
            later = await self._queue_later(
                job, token, fault.error, seconds=fault.seconds, is_counted=False
            )
        elif may_pass(fault) and job.attempt < self._limits.attempts_max:
            pause = pause_seconds(job.attempt, self._limits.retry_seconds)
            later = await self._queue_later(job, token, fault, seconds=pause, is_counted=True)
        else:
            return await self._discarded(handler, job, token, _failed(fault))
        # It was cancelled at this moment.
        return (
            None if later else await self._discarded(handler, job, token, _End(JobState.CANCELLED))
        )

    async def _run(
        self, handler: JobHandler, attempt: _Attempt, job: RunningJob
    ) -> Exception | None:
        """Run a job while its progress is stored; returns what it raised.

        Raises:
            JobLost: Another process has the job.
        """
        attempt.run = run = asyncio.create_task(handler.run(job), name=f"run of job {job.id}")
        ended = asyncio.Event()
        report = asyncio.create_task(_report(attempt, job, ended), name=f"progress of job {job.id}")
        try:
            await asyncio.wait([run])
        finally:
            # A write to MongoDB that is cancelled may go on: the report ends between two of them.
            ended.set()
            await cancel_and_wait(run)
            await asyncio.wait([report])
        if attempt.is_lost:
            raise JobLost
        fault = asyncio.CancelledError() if run.cancelled() else run.exception()
        if fault is None:
            return None
        if attempt.is_cancelled:
            return JobError("It was cancelled.")
        if isinstance(fault, JobLost):
            raise fault
        if isinstance(fault, JobPostponed | Error):
            return fault
        _log.error("job %s met a defect", job.id, exc_info=fault)
        return RuntimeError(type(fault).__name__)

    async def _discarded(self, handler: JobHandler, job: RunningJob, token: int, end: _End) -> _End:
        """Remove what a job left half done; what remains of it is said in its error."""
        left: JobError = LeftoversRemain()
        for attempt in range(1, _DISCARD_ATTEMPTS + 1):
            try:
                # Never remove what another process is working on.
                await self._store.write(job.id, token, {"error": end.error})
                await handler.discard(job)
                await job.flush()
            except JobLost:
                raise
            except Exception as exc:  # noqa: BLE001  # the job must end all the same
                _log_fault("job %s left something", job.id, exc)
                left = exc if isinstance(exc, JobError) else left
                if attempt < _DISCARD_ATTEMPTS:
                    await asyncio.sleep(_AGAIN_SECONDS)
            else:
                return end
        return replace(end, error=error_record(left))

    async def _queue_later(
        self, job: RunningJob, token: int, error: Exception, *, seconds: float, is_counted: bool
    ) -> bool:
        """Queue a job again; False when somebody has cancelled it."""
        await job.flush()
        return await self._store.queue_later(
            job.id,
            token,
            error=error_record(error),
            next_attempt_at=to_stored_precision(self._now() + timedelta(seconds=seconds)),
            is_counted=is_counted,
        )

    async def _release(self, job_id: str, token: int) -> None:
        """Let the next runner begin the job at once; that this server stops is no attempt."""
        try:
            async with asyncio.timeout(_RELEASE_SECONDS):
                await self._store.queue_later(
                    job_id, token, error=None, next_attempt_at=None, is_counted=False
                )
        except (DatabaseUnavailable, JobLost, TimeoutError) as exc:
            _log.info("job %s was not released: %s", job_id, type(exc).__name__)

    async def _store_end(self, job: RunningJob, end: _End, token: int) -> None:
        await self._record(job, end)
        while True:
            try:
                await job.flush()
                changes = ended_fields(
                    end.state,
                    now=to_stored_precision(self._now()),
                    retention=self._limits.retention,
                )
                await self._store.write(job.id, token, {**changes, "error": end.error})
            except DatabaseUnavailable as exc:
                _log.warning("the end of job %s waits: %s", job.id, exc.detail or exc.message)
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                JOBS.labels(job.kind, end.state).inc()
                _log.info("job %s (%s) ended: %s", job.id, job.kind, end.state)
                return

    async def _record(self, job: RunningJob, end: _End) -> None:
        """Write into the audit trail how a job ended; its record may wait while MongoDB is away."""
        event = AuditEvent(
            action=_ACTIONS[job.kind],
            principal=Principal(job.created_by, job.role),
            correlation_id=job.correlation_id,
            detail=f"job {job.id} {end.state}",
            outcome=end.error.code if end.error is not None else OK,
            study_ids={*job.orthanc_study_ids, *job.result_study_ids},
            number_of_objects=job.completed,
        )
        with suppress(DatabaseUnavailable):
            await self._audit.record(event)


async def _report(attempt: _Attempt, job: RunningJob, ended: asyncio.Event) -> None:
    """Store the progress of a run twice a second, until it has ended."""
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(_FLUSH_SECONDS):
                await ended.wait()
                return
        try:
            await job.flush()
        except JobLost:
            attempt.lose()
            return
        except Error as exc:
            _log.warning("progress of job %s waits: %s", job.id, exc.detail or exc.message)


def _log_fault(message: str, job_id: str, fault: Exception) -> None:
    """Log a fault; of a defect with its traceback."""
    if isinstance(fault, Error):
        _log.warning(f"{message}: %s", job_id, fault.detail or fault.message)
    else:
        _log.error(message, job_id, exc_info=fault)


def _failed(error: Exception) -> _End:
    return _End(JobState.FAILED, error_record(error))
