"""Mutations of backups."""

from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.audit import recorded
from graph.execution.authorization import RequiresRole
from graph.types.job import Job
from models import JobKind
from services.audit import Action
from services.auth.roles import Role, authorize
from services.backup.service import ONCE
from services.jobs.handler import NewJob


@strawberry.type
class BackupMutation:
    """Root fields that make and verify backups."""

    @strawberry.mutation(
        description="Make a backup in BACKUP_FOLDER while the server runs. While one is being made "
        "its job is answered. The progress counts Orthanc's files.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def create_backup(self, info: Info) -> Job:
        """Start a backup."""
        runtime = info.context.runtime
        principal = authorize(info.context.principal, Role.ADMIN)
        async with recorded(
            runtime.audit, Action.BACKUP, principal, detail="createBackup"
        ) as event:
            runtime.backup_folder.require_path()
            job = await runtime.jobs.start(
                NewJob(kind=JobKind.BACKUP, lane=ONCE, once=ONCE),
                principal,
                correlation_id=event.correlation_id,
            )
            event.detail = f"createBackup {job.id}"
        return Job.of(job)

    @strawberry.mutation(
        description="Read every byte of a backup, start a MongoDB and an Orthanc on copies of it "
        "beside the server, and count what they hold. The job's `failures` say what is missing or "
        "damaged.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def verify_backup(
        self,
        info: Info,
        name: Annotated[str, strawberry.argument(description="Its `name` in `backups`.")],
    ) -> Job:
        """Start a verification."""
        runtime = info.context.runtime
        principal = authorize(info.context.principal, Role.ADMIN)
        async with recorded(
            runtime.audit, Action.BACKUP, principal, detail="verifyBackup"
        ) as event:
            backup = await runtime.backup_folder.require(name)
            job = await runtime.jobs.start(
                NewJob(
                    kind=JobKind.VERIFY_BACKUP,
                    parameters={"name": backup.name},
                    lane=ONCE,
                    once=f"{ONCE}:{backup.name}",
                ),
                principal,
                correlation_id=event.correlation_id,
            )
            event.detail = f"verifyBackup {backup.name} {job.id}"
        return Job.of(job)
