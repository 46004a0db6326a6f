"""Queries for jobs: long work in the background."""

from functools import partial
from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.authorization import RequiresRole
from graph.inputs import After, First, JobFilter, NodeId
from graph.relay import Connection, connection_from, require_node_id
from graph.types.job import Job, OrthancJob
from services.auth.roles import Role, authorize
from services.errors import PacsDisabled
from services.query.paging import PageRequest


@strawberry.type
class JobsQuery:
    """Root fields that read jobs."""

    @strawberry.field(
        description="A job by its `id`; null when there is none, or when somebody else started it "
        "and the caller is no administrator.",
        extensions=[RequiresRole(Role.VIEWER)],
    )
    async def job(self, info: Info, node_id: NodeId) -> Job | None:
        """Find a job."""
        principal = authorize(info.context.principal, Role.VIEWER)
        job_id = require_node_id("Job", node_id)
        job = await info.context.runtime.jobs.find(job_id, principal)
        return None if job is None else Job.of(job)

    @strawberry.field(
        description="The jobs that the caller started, the newest first; to administrators those "
        "of everybody.",
        extensions=[RequiresRole(Role.VIEWER)],
    )
    async def jobs(
        self,
        info: Info,
        first: First = 20,
        after: After = None,
        filter_: Annotated[
            JobFilter | None, strawberry.argument(name="filter", description="Which ones.")
        ] = None,
    ) -> Connection[Job]:
        """List jobs."""
        jobs = info.context.runtime.jobs
        principal = authorize(info.context.principal, Role.VIEWER)
        criteria = (filter_ or JobFilter()).to_criteria()
        page = await jobs.page(PageRequest(first=first, after=after), criteria, principal)
        info.context.count_nodes(len(page.documents))
        return connection_from(page, Job.from_stored, partial(jobs.count, criteria, principal))

    @strawberry.field(
        description="Jobs of Orthanc itself, as far as it remembers them, the newest first.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def orthanc_jobs(self, info: Info) -> list[OrthancJob]:
        """List Orthanc's jobs."""
        orthanc = info.context.runtime.orthanc
        if orthanc is None:
            raise PacsDisabled
        jobs = await orthanc.jobs()
        info.context.count_nodes(len(jobs))
        return [OrthancJob.of(job) for job in jobs]
