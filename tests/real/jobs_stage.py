"""Jobs under test: handlers that do as they are told, and a runner that is ended with the test."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, ClassVar

from pymongo.asynchronous.database import AsyncDatabase

from models import JobDocument, JobKind
from models.job import ACTIVE_STATES
from services.audit import Audit
from services.auth.roles import Principal, Role
from services.jobs.handler import JobHandler, RunningJob
from services.jobs.runner import JobRunner, RunnerLimits
from services.jobs.service import Jobs
from services.jobs.store import JobStore
from services.runtime import Runtime
from services.tasks import cancel_and_wait
from tests.patience import PATIENCE_SECONDS

ANNA = Principal(name="anna", role=Role.UPLOADER)
BEN = Principal(name="ben", role=Role.VIEWER)
ADMIN = Principal(name="root", role=Role.ADMIN)


class Told:
    """A handler whose runs do what a test says, and wait where it says."""

    kind: ClassVar[JobKind] = JobKind.SEND

    def __init__(self) -> None:
        self.running: dict[str, RunningJob] = {}
        self.begun: list[str] = []
        self.discarded: list[str] = []
        self.most_at_once = 0
        self.faults: list[Exception] = []
        self.may_end = asyncio.Event()
        self.changed = asyncio.Condition()

    async def run(self, job: RunningJob) -> None:
        self.begun.append(job.id)
        self.running[job.id] = job
        self.most_at_once = max(self.most_at_once, len(self.running))
        await self._notify()
        try:
            if self.faults:
                raise self.faults.pop(0)
            await self.may_end.wait()
            for uid in job.parameters.get("failing", ()):
                job.fail(uid, RuntimeError("Doe^Jane"))
            job.progress(completed=job.parameters.get("completed", 1))
        finally:
            del self.running[job.id]

    async def discard(self, job: RunningJob) -> None:
        self.discarded.append(job.id)
        await self._notify()

    async def until_begun(self, count: int) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS), self.changed:
            await self.changed.wait_for(lambda: len(self.begun) >= count)

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()


class Export(Told):
    """The same under another kind."""

    kind: ClassVar[JobKind] = JobKind.EXPORT


def make_runner(
    database: AsyncDatabase[dict[str, Any]], *handlers: JobHandler, **limits: Any
) -> JobRunner:
    given = {
        "concurrency": 4,
        "attempts_max": 3,
        "retention": timedelta(days=1),
        "retry_seconds": 0.0,
        **limits,
    }
    return JobRunner(database, handlers, Audit(database), RunnerLimits(**given))


def make_jobs(database: AsyncDatabase[dict[str, Any]], runner: JobRunner | None = None) -> Jobs:
    return Jobs(
        JobStore(database),
        retention=timedelta(days=1),
        page_max_size=100,
        on_queued=runner.wake if runner else lambda: None,
    )


@asynccontextmanager
async def running_jobs(runtime: Runtime) -> AsyncIterator[None]:
    """Run the jobs of a server that was opened without its background tasks."""
    async with running(runtime.job_runner):
        yield


@asynccontextmanager
async def running(runner: JobRunner) -> AsyncIterator[None]:
    """Run jobs while inside."""
    task = asyncio.create_task(runner.run())
    try:
        yield
    finally:
        await cancel_and_wait(task)


async def ended(runtime: Runtime, job_id: str) -> JobDocument:
    """Wait until a job has ended, and return it."""
    return await ended_job(JobStore(runtime.database), job_id)


async def ended_job(store: JobStore, job_id: str) -> JobDocument:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            job = await store.find(job_id)
            assert job is not None
            if job.state not in ACTIVE_STATES:
                return job
            await asyncio.sleep(0.05)
