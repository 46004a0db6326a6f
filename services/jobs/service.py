"""Starting, finding, cancelling and retrying jobs."""

import secrets
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from models import JobDocument, JobKind, JobState
from models.job import JobScope
from services.auth.roles import Principal, Role
from services.errors import Forbidden, JobConflict, NotFound, TooManyRequests
from services.index.record import to_stored_precision
from services.jobs.handler import NewJob
from services.jobs.store import JobCriteria, JobStore, is_visible_to, visible_to
from services.query.paging import Page, PageRequest
from services.query.tree import StoredFields

_ID_BYTES = 8

_ACTIVE_OF_ONE_MAX = 1000
"""Jobs of one principal that have not ended: who has more waits for some of them."""

_ACTIVE_OF_VIEWER_MAX = 20
"""The same of a viewer or the holder of a share, of whom there may be many."""

NO_JOB = "There is no such job."


def ended_fields(state: JobState, *, now: datetime, retention: timedelta) -> dict[str, Any]:
    """Return the attributes of a job that has ended.

    Args:
        state: How.
        now: When, with time zone.
        retention: How long it is kept.
    """
    return {
        "state": state,
        "once": None,
        "runner": None,
        "next_attempt_at": None,
        "finished_at": now,
        "expires_at": now + retention,
    }


class Jobs:
    """The jobs of this server.

    Args:
        store: The jobs in MongoDB.
        retention: How long jobs are kept that have ended.
        page_max_size: Largest page of the list.
        on_queued: Called when there is something to run or to cancel, for a runner in this
            process; one in another process finds out within a second.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        store: JobStore,
        *,
        retention: timedelta,
        page_max_size: int,
        on_queued: Callable[[], None] = lambda: None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._retention = retention
        self._page_max_size = page_max_size
        self._on_queued = on_queued
        self._now = now

    async def start(
        self, new: NewJob, principal: Principal, *, correlation_id: str = "-"
    ) -> JobDocument:
        """Queue a job.

        Args:
            new: What to do; whether the principal may do it, is checked by the caller.
            principal: Who starts it. What it makes is theirs to see, and no more than their scope.
            correlation_id: Of the request.

        Returns:
            The job; or the one that is under way and has the same `once`.

        Raises:
            TooManyRequests: The principal has 1,000 jobs that have not ended, or is a viewer with
                20.
            DatabaseUnavailable: MongoDB does not answer.
        """
        await self._require_room(principal)
        scope = principal.scope
        job: JobDocument = JobDocument.model_construct(
            id=secrets.token_hex(_ID_BYTES),
            kind=new.kind,
            state=JobState.QUEUED,
            parameters=dict(new.parameters),
            checkpoint={},
            lane=new.lane or (None if new.modality is None else f"modality:{new.modality}"),
            key=new.once,
            once=new.once,
            modality=new.modality,
            orthanc_study_ids=list(dict.fromkeys(new.orthanc_study_ids)),
            study_instance_uids=list(dict.fromkeys(new.study_instance_uids)),
            total=new.total,
            created_at=to_stored_precision(self._now()),
            created_by=principal.name,
            role=principal.role.name.lower(),
            seen_by=[principal.name],
            scope=JobScope(
                study_ids=None if scope.study_ids is None else sorted(scope.study_ids),
                labels=None if scope.labels is None else sorted(scope.labels),
            ),
            correlation_id=correlation_id,
        )
        job = await self._store.add(job)
        self._on_queued()
        return job

    async def find(self, job_id: str, principal: Principal) -> JobDocument | None:
        """Find a job that a principal may know of.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        job = await self._store.find(job_id)
        return job if job is not None and is_visible_to(principal, job) else None

    async def page(self, request: PageRequest, criteria: JobCriteria, principal: Principal) -> Page:
        """Read a page of the jobs that a principal may know of, the newest first.

        Raises:
            InvalidInput: The page makes no sense.
            DatabaseUnavailable: MongoDB does not answer.
        """
        return await self._store.page(
            request, criteria, visible_to(principal), max_size=self._page_max_size
        )

    async def count(self, criteria: JobCriteria, principal: Principal) -> int:
        """Count the jobs of the list that `page` reads."""
        return await self._store.count(criteria, visible_to(principal))

    async def active(
        self,
        *,
        kind: JobKind | None = None,
        modality: str | None = None,
        study_instance_uids: Sequence[str] | None = None,
        principal: Principal,
    ) -> list[JobDocument]:
        """Find jobs that have not ended and that a principal may know of, at most 200.

        Args:
            kind: Only of this kind.
            modality: Only with this modality.
            study_instance_uids: Only about one of these studies.
            principal: Who asks.
        """
        return await self._store.active(
            visible_to(principal),
            kind=kind,
            modality=modality,
            study_instance_uids=study_instance_uids,
        )

    async def of_studies(
        self, study_ids: Sequence[str], principal: Principal
    ) -> list[list[StoredFields]]:
        """Read the newest jobs of studies that a principal may know of; see `JobStore`."""
        return await self._store.of_studies(study_ids, visible_to(principal))

    async def cancel(self, job_id: str, principal: Principal) -> JobDocument:
        """Cancel a job; one that runs is CANCELLING until its runner has ended it.

        Args:
            job_id: Which; administrators may cancel everybody's, others those that they started.
            principal: Who asks.

        Raises:
            NotFound: There is no such job, or it is another principal's.
            JobConflict: It has ended already.
            DatabaseUnavailable: MongoDB does not answer.
        """
        await self._require_own(job_id, principal)
        end = ended_fields(JobState.CANCELLED, now=self._stored_now(), retention=self._retention)
        job = await self._store.cancel(job_id, end)
        if job is None:
            raise JobConflict("The job has ended already.")
        self._on_queued()
        return job

    async def cancel_all(self, created_by: str) -> int:
        """Cancel all jobs of a principal, such as a person who may not come any more.

        Args:
            created_by: Name of the principal; the caller is an administrator.

        Returns:
            How many had not ended.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        cancelled = await self._store.cancel_all(created_by, error=None)
        self._on_queued()
        return cancelled

    async def retry(self, job_id: str, principal: Principal) -> JobDocument:
        """Queue a job again that is FAILED, PARTIAL or CANCELLED; it does what is missing.

        Args:
            job_id: Which; likewise.
            principal: Who asks.

        Raises:
            NotFound: There is no such job, or it is another principal's.
            Forbidden: The principal has less of a role than the one who started it had.
            TooManyRequests: As when one is started.
            JobConflict: It has not ended, it has succeeded, or the same is under way.
            DatabaseUnavailable: MongoDB does not answer.
        """
        own = await self._require_own(job_id, principal)
        if principal.role < Role[own.role.upper()]:
            # It would do again what this principal may not do any more.
            raise Forbidden("You had another role when you started this job.")
        await self._require_room(principal)
        job = await self._store.queue_again(own)
        if job is None:
            raise JobConflict(
                "Only jobs that are FAILED, PARTIAL or CANCELLED can be retried, and only while "
                "no other job does the same."
            )
        self._on_queued()
        return job

    async def _require_room(self, principal: Principal) -> None:
        is_viewer = principal.role < Role.UPLOADER
        most = _ACTIVE_OF_VIEWER_MAX if is_viewer else _ACTIVE_OF_ONE_MAX
        if await self._store.count_active(principal.name) >= most:
            raise TooManyRequests("You have too many jobs that have not ended. Wait for some.")

    async def _require_own(self, job_id: str, principal: Principal) -> JobDocument:
        job = await self.find(job_id, principal)
        if job is None or (principal.role < Role.ADMIN and job.created_by != principal.name):
            raise NotFound(NO_JOB)
        return job

    def _stored_now(self) -> datetime:
        return to_stored_precision(self._now())
