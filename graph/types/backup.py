"""Backups of what the embedded stores hold."""

from datetime import datetime
from typing import Self

import strawberry

from services.backup import catalogue


@strawberry.type(description="A complete backup in BACKUP_FOLDER.")
class Backup:
    """A backup."""

    name: str = strawberry.field(description="Name of its folder: when it was begun, in UTC.")
    created_at: datetime = strawberry.field(
        description="When it was started; it contains what was stored before."
    )
    number_of_studies: int = strawberry.field(description="Studies that it restores.")
    number_of_instances: int = strawberry.field(description="Instances that it restores.")
    bytes: float = strawberry.field(
        description="Size of all its files. Unchanged files use disk space once for all backups."
    )
    includes_orthanc: bool = strawberry.field(
        description="Whether it contains Orthanc's files. Those of an external Orthanc are saved "
        "by its own tools."
    )
    verified_at: datetime | None = strawberry.field(
        description="When `verifyBackup` last found no fault; null: never."
    )

    @classmethod
    def of(cls, backup: catalogue.Backup) -> Self:
        """Show a backup."""
        manifest = backup.manifest
        return cls(
            name=backup.name,
            created_at=manifest.created_at,
            number_of_studies=manifest.number_of_studies,
            number_of_instances=manifest.number_of_instances,
            bytes=float(manifest.size),
            includes_orthanc=manifest.orthanc is not None,
            verified_at=backup.verified_at,
        )
