"""Changes of jobs, sent to all listeners, whichever process runs the jobs."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import JobDocument, JobKind
from services.errors import LimitExceeded
from services.observability.metrics import EVENTS_DROPPED
from services.sync.change_stream import ChangeStream, SharedStream
from services.tasks import Supervisor

BURST_SECONDS = 1.0
"""Least time between two events of one job."""

TICK_SECONDS = 0.25
"""How often held-back events are looked at."""

LISTENER_MAX_JOBS = 1_000
"""Jobs whose events wait for one listener: one that is further behind gets an error."""


@dataclass(slots=True)
class _Paced:
    job: JobDocument
    sent_at: float | None = None
    is_pending: bool = True


class JobPacing:
    """Lets through one event of a job in a second, always the latest. Has no clock of its own."""

    def __init__(self) -> None:
        self._paced: dict[str, _Paced] = {}

    def add(self, job: JobDocument) -> None:
        """Take in a job as it is now."""
        known = self._paced.setdefault(job.id, _Paced(job))
        known.job, known.is_pending = job, True

    def due(self, at: float) -> list[JobDocument]:
        """Return the jobs that are due, each once.

        Args:
            at: Now, in seconds.
        """
        events = []
        for job_id, one in tuple(self._paced.items()):
            if one.sent_at is not None and at - one.sent_at < BURST_SECONDS:
                continue
            if one.is_pending:
                events.append(one.job)
                one.sent_at, one.is_pending = at, False
            else:
                del self._paced[job_id]
        return events


class JobListener:
    """One subscriber; what waits for it is the latest of each job.

    Args:
        job_id: Only this job; None for all.
        kinds: Only these kinds; None for all.
    """

    def __init__(self, job_id: str | None, kinds: Collection[JobKind] | None) -> None:
        self._job_id = job_id
        self._kinds = kinds
        self._waiting: dict[str, JobDocument] = {}
        self._is_too_slow = False
        self._something = asyncio.Event()

    def add(self, job: JobDocument) -> None:
        """Queue an event; one job too many ends the listening."""
        if self._job_id not in (None, job.id):
            return
        if self._kinds is not None and job.kind not in self._kinds:
            return
        self._waiting[job.id] = job
        if len(self._waiting) > LISTENER_MAX_JOBS and not self._is_too_slow:
            self._is_too_slow = True
            EVENTS_DROPPED.inc(len(self._waiting))
        self._something.set()

    async def events(self) -> AsyncGenerator[JobDocument, None]:
        """Yield jobs as they change.

        Raises:
            LimitExceeded: The listener was too slow.
        """
        while True:
            await self._something.wait()
            if self._is_too_slow:
                raise LimitExceeded("Events came faster than they were read. Subscribe again.")
            if self._waiting:
                yield self._waiting.pop(next(iter(self._waiting)))
            else:
                self._something.clear()


class JobEvents:
    """The change stream of the jobs and its listeners.

    Args:
        database: Where the jobs are.
        supervisor: Of the background tasks of this process.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], supervisor: Supervisor) -> None:
        self._jobs = database[JobDocument.Settings.name]
        self._listeners: set[JobListener] = set()
        self._pacing = JobPacing()
        self._stream = SharedStream(
            "job events", self._open_stream, self._step, supervisor=supervisor
        )

    @asynccontextmanager
    async def listen(
        self, job_id: str | None = None, *, kinds: Collection[JobKind] | None = None
    ) -> AsyncIterator[JobListener]:
        """Listen; every change from here on is sent. Whether the caller may see it, they check.

        Args:
            job_id: Only this job; None for all.
            kinds: Only these kinds; None for all.

        Raises:
            EventsUnavailable: MongoDB is no replica set.
        """
        listener = JobListener(job_id, kinds)
        self._listeners.add(listener)
        try:
            async with self._stream.watched():
                yield listener
        finally:
            self._listeners.discard(listener)

    async def close(self) -> None:
        """Stop watching."""
        await self._stream.close()

    async def _step(self, stream: ChangeStream) -> None:
        change = await stream.try_next()
        document = change and change.get("fullDocument")
        if document:
            self._pacing.add(JobDocument.model_validate(document))
        for job in self._pacing.due(asyncio.get_running_loop().time()):
            for listener in tuple(self._listeners):
                listener.add(job)
        # A burst comes in one answer of MongoDB: listeners read in between.
        await asyncio.sleep(0)

    async def _open_stream(self, resume_after: Any) -> ChangeStream:  # noqa: ANN401  # MongoDB's token
        return await self._jobs.watch(
            [{"$match": {"operationType": {"$in": ["insert", "update", "replace"]}}}],
            full_document="updateLookup",
            resume_after=resume_after,
            max_await_time_ms=round(TICK_SECONDS * 1000),
        )
