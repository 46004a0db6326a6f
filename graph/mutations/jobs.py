"""Mutations of jobs: cancelling and retrying."""

from collections.abc import Awaitable, Callable
from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.audit import recorded
from graph.execution.authorization import RequiresRole
from graph.inputs import NodeId
from graph.relay import require_node_id
from graph.types.job import Job, OrthancJob
from models import JobDocument
from services.audit import Action
from services.auth.roles import Principal, Role, authorize
from services.errors import PacsDisabled


@strawberry.type
class JobsMutation:
    """Root fields that cancel and retry jobs."""

    @strawberry.mutation(
        description="Cancel a job. One that runs is `CANCELLING` until it has ended, which takes "
        "about a second; what it had made until then is removed where it would be half done. Who "
        "started it and administrators may do this; `JOB_CONFLICT` when it has ended already.",
        extensions=[RequiresRole(Role.VIEWER)],
    )
    async def cancel_job(self, info: Info, node_id: NodeId) -> Job:
        """Cancel a job."""
        return await _change(info, "cancelJob", node_id, info.context.runtime.jobs.cancel)

    @strawberry.mutation(
        description="Cancel all jobs that somebody started and that have not ended, such as those "
        "of a person who left; returns how many. Jobs of a token or share that is revoked are "
        "cancelled without it.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def cancel_jobs(
        self,
        info: Info,
        created_by: Annotated[str, strawberry.argument(description="`createdBy` of the jobs.")],
    ) -> int:
        """Cancel the jobs of a principal."""
        runtime, principal = info.context.runtime, info.context.principal
        async with recorded(
            runtime.audit, Action.JOB, principal, detail=f"cancelJobs {created_by[:64]}"
        ) as event:
            event.number_of_objects = count = await runtime.jobs.cancel_all(created_by)
        return count

    @strawberry.mutation(
        description="Begin a job again that is `FAILED`, `PARTIAL` or `CANCELLED`; it does only "
        "what is missing. Who started it and administrators may do this; `JOB_CONFLICT` when it is "
        "in another state, or when another job does the same.",
        extensions=[RequiresRole(Role.VIEWER)],
    )
    async def retry_job(self, info: Info, node_id: NodeId) -> Job:
        """Retry a job."""
        return await _change(info, "retryJob", node_id, info.context.runtime.jobs.retry)

    @strawberry.mutation(
        description="Cancel a job of Orthanc itself. Orthanc does not stop what another archive is "
        "sending to it.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def cancel_orthanc_job(
        self,
        info: Info,
        job_id: Annotated[
            str, strawberry.argument(name="id", description="Its `id` in `orthancJobs`.")
        ],
    ) -> OrthancJob:
        """Cancel one of Orthanc's jobs."""
        runtime, principal = info.context.runtime, info.context.principal
        async with recorded(runtime.audit, Action.JOB, principal, detail="cancelOrthancJob"):
            if runtime.orthanc is None:
                raise PacsDisabled
            return OrthancJob.of(await runtime.orthanc.cancel_job(job_id))


async def _change(
    info: Info,
    name: str,
    node_id: str,
    change: Callable[[str, Principal], Awaitable[JobDocument]],
) -> Job:
    context = info.context
    principal = authorize(context.principal, Role.VIEWER)
    async with recorded(context.runtime.audit, Action.JOB, principal, detail=name) as event:
        job_id = require_node_id("Job", node_id)
        event.detail = f"{name} {job_id}"
        job = await change(job_id, principal)
        event.study_ids.update(job.orthanc_study_ids)
    return Job.of(job)
