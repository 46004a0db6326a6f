"""Restoring a backup into a new data directory and a new database."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import REPLACEMENTS, JobDocument, JobState
from models.job import ACTIVE_STATES
from models.stored import stored_name
from services.backup import catalogue
from services.backup.catalogue import Backup, BackupFailed
from services.backup.orthanc_copy import (
    Progress,
    StorageCopy,
    check_index,
    file_chunks,
    forget_jobs,
    ignore_progress,
)
from services.backup.verification import fault_of_index
from services.database import translated_database_faults
from services.files import make_private_folder
from services.tasks import finish_in_thread

_STATE = stored_name(JobDocument.state)
_ONCE = stored_name(JobDocument.once)
_RUNNER = stored_name(JobDocument.runner)
_NEXT_ATTEMPT_AT = stored_name(JobDocument.next_attempt_at)
_FINISHED_AT = stored_name(JobDocument.finished_at)
_EXPIRES_AT = stored_name(JobDocument.expires_at)
_JOBS_KEPT = timedelta(days=30)


async def restore_files(
    folder: Path, name: str | None, data_dir: Path, *, on_progress: Progress = ignore_progress
) -> Backup:
    """Put keys, index and files of a backup into an empty data directory.

    Args:
        folder: Of all backups.
        name: Which; None: the newest.
        data_dir: New or empty.
        on_progress: Told how many of Orthanc's files are done.

    Raises:
        NotFound: There is no such backup.
        BackupFailed: The data directory is not empty, or the backup is damaged.
        OSError: The disk is full.
    """
    backup = await finish_in_thread(catalogue.require_backup, folder, name)
    path = folder / backup.name
    await finish_in_thread(_prepare_data_dir, path, data_dir)
    if backup.manifest.orthanc is None:
        return backup
    index = path / catalogue.INDEX
    fault = await finish_in_thread(fault_of_index, index, backup.manifest.orthanc)
    if fault:
        raise BackupFailed(fault)
    target = data_dir / "orthanc"
    copy = await finish_in_thread(StorageCopy, path / catalogue.STORAGE, target / "storage", None)
    files = 0
    async for chunk in file_chunks(index):
        if not await finish_in_thread(copy.add_all, chunk):
            raise BackupFailed(
                f"Files of the backup {backup.name} are missing. Verify it with: "
                f"orthanc-graphql backup {folder} --verify"
            )
        files += len(chunk)
        on_progress(files, backup.manifest.orthanc.files)
    await finish_in_thread(_copy_restored_index, index, target / "index")
    return backup


def _prepare_data_dir(backup: Path, data_dir: Path) -> None:
    if data_dir.exists() and any(data_dir.iterdir()):
        raise BackupFailed(f"{data_dir} is not empty. Restore into a new folder.")
    make_private_folder(data_dir)
    for key in (backup / catalogue.KEYS).iterdir():
        shutil.copy2(key, data_dir / key.name)


def _copy_restored_index(index: Path, target: Path) -> None:
    make_private_folder(target)
    shutil.copyfile(index, target / "index")
    check_index(target / "index", is_thorough=True)
    forget_jobs(target / "index")


async def end_active_jobs(database: AsyncDatabase[dict[str, Any]]) -> list[str]:
    """Cancel the jobs that had not ended: what they did after the backup is not known here.

    A study must not be sent to another archive a second time because its server was restored.

    Returns:
        Which jobs may have left files on their way into Orthanc: these, and those that were started
        while the backup was made.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
    """
    now = datetime.now(UTC)
    jobs = database[JobDocument.Settings.name]
    with translated_database_faults():
        left = set(await database[f"{REPLACEMENTS}.files"].distinct("metadata.job"))
        ended = {"_id": {"$in": sorted(left)}, _STATE: {"$nin": list(ACTIVE_STATES)}}
        left -= set(await jobs.distinct("_id", ended))
        await jobs.update_many(
            {_STATE: {"$in": list(ACTIVE_STATES)}},
            {
                "$set": {
                    _STATE: JobState.CANCELLED.value,
                    _FINISHED_AT: now,
                    _EXPIRES_AT: now + _JOBS_KEPT,
                },
                "$unset": {_ONCE: "", _RUNNER: "", _NEXT_ATTEMPT_AT: ""},
            },
        )
    return sorted(left)
