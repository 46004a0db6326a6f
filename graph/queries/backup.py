"""Queries for backups."""

import strawberry

from graph.context import Info
from graph.execution.authorization import RequiresRole
from graph.types.backup import Backup
from services.auth.roles import Role


@strawberry.type
class BackupQuery:
    """Root fields that read backups."""

    @strawberry.field(
        description="The backups in BACKUP_FOLDER, the newest first; empty where it is not set.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def backups(self, info: Info) -> list[Backup]:
        """List backups."""
        found = await info.context.runtime.backup_folder.list()
        info.context.count_nodes(len(found))
        return [Backup.of(one) for one in found]
