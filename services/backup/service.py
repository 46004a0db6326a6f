"""Backups of this server: listed, and made and verified by jobs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from pymongo.asynchronous.database import AsyncDatabase

from models import JobKind
from services.backup import catalogue
from services.backup.catalogue import Backup, BackupFailed
from services.backup.creation import EmbeddedData, create_backup
from services.backup.verification import verify_backup
from services.embedded.orthanc_installation import find_orthanc
from services.jobs.handler import RunningJob
from services.tasks import finish_in_thread

ONCE = "backup"
"""Of all jobs that use the folder, one runs at a time."""


@dataclass(frozen=True, slots=True)
class BackupFolder:
    """Where backups lie.

    Attributes:
        path: BACKUP_FOLDER; None: it is not set.
    """

    path: Path | None

    def require_path(self) -> Path:
        """Return the folder.

        Raises:
            BackupFailed: There is none.
        """
        if self.path is None:
            raise BackupFailed("Backups are off on this server: BACKUP_FOLDER is not set.")
        return self.path

    async def list(self) -> list[Backup]:
        """Return all complete backups, the newest first; none where the folder is not set.

        Raises:
            BackupFailed: The folder can't be read.
        """
        if self.path is None:
            return []
        try:
            return await finish_in_thread(catalogue.list_backups, self.path)
        except OSError as exc:
            raise _translated(exc) from exc

    async def require(self, name: str) -> Backup:
        """Find a backup.

        Raises:
            NotFound: There is no such one.
            BackupFailed: The folder is not set, or its manifest is damaged.
        """
        return await finish_in_thread(catalogue.require_backup, self.require_path(), name)


async def embedded_data(data_dir: Path, *, has_orthanc: bool) -> EmbeddedData:
    """Describe what is embedded; runs `Orthanc --version`.

    Raises:
        NotInstalled: Orthanc is embedded and not on this machine.
    """
    if not has_orthanc:
        return EmbeddedData(data_dir, None)
    release = (await finish_in_thread(find_orthanc)).release
    shown = ".".join(map(str, release)) if release else "unknown"
    return EmbeddedData(data_dir, shown)


class BackupHandler:
    """Makes backups.

    Args:
        database: The documents.
        data_dir: DATA_DIR.
        has_orthanc: Whether Orthanc is embedded there.
        folder: Of the backups.
    """

    kind: ClassVar[JobKind] = JobKind.BACKUP

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        data_dir: Path,
        folder: BackupFolder,
        *,
        has_orthanc: bool,
    ) -> None:
        self._database = database
        self._data_dir = data_dir
        self._folder = folder
        self._has_orthanc = has_orthanc

    async def run(self, job: RunningJob) -> None:
        """Make a backup; its progress counts Orthanc's files.

        Raises:
            BackupFailed: It can't be made.
            DatabaseUnavailable: MongoDB does not answer.
        """
        data = await embedded_data(self._data_dir, has_orthanc=self._has_orthanc)
        try:
            await create_backup(
                self._database,
                data,
                self._folder.require_path(),
                on_progress=lambda done, total: job.progress(completed=done, total=total),
            )
        except OSError as exc:
            raise _translated(exc) from exc

    async def discard(self, job: RunningJob) -> None:
        """Nothing: what a backup leaves that is not finished, the next one removes."""


class VerifyBackupHandler:
    """Verifies backups: `parameters` has the `name` of one.

    Args:
        folder: Of the backups.
    """

    kind: ClassVar[JobKind] = JobKind.VERIFY_BACKUP

    def __init__(self, folder: BackupFolder) -> None:
        self._folder = folder

    async def run(self, job: RunningJob) -> None:
        """Verify a backup; its progress counts Orthanc's files.

        Raises:
            BackupFailed: Something is missing or damaged; the failures of the job say what.
            NotFound: It was removed.
            EmbeddedStoreError: A store can't be started on the copy.
        """
        try:
            found = await verify_backup(
                self._folder.require_path(),
                str(job.parameters["name"]),
                on_progress=lambda done, total: job.progress(completed=done, total=total),
            )
        except OSError as exc:
            raise _translated(exc) from exc
        for fault in found.faults:
            job.fail(None, BackupFailed(fault))
        if found.faults:
            raise BackupFailed(
                f"The backup {found.name} is damaged: {found.faults[0]} Make a new one."
            )

    async def discard(self, job: RunningJob) -> None:
        """Nothing is left behind."""


def _translated(exc: OSError) -> BackupFailed:
    return BackupFailed(
        f"The backup folder can't be used: {exc.strerror}. Check its disk, owner and mode.",
        detail=str(exc.filename),
    )
