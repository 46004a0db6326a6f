"""Making a backup of the embedded stores while they run.

MongoDB comes first, of one moment; then Orthanc's index, then its files. What arrived in between is
in Orthanc's part alone, and the comparison of a restored server indexes it. Files that are being
replaced are written once more, just before the index: none is missing in both parts. An Orthanc
that is not embedded has tools of its own (docs/backup.md): its files are left out.
"""

import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import REPLACEMENT_COLLECTIONS, InstanceDocument, JobDocument, StudyDocument
from services.auth.open_mode import MARK_NAME
from services.backup import catalogue
from services.backup.catalogue import (
    Backup,
    BackupFailed,
    CopiedOrthanc,
    DumpedCollection,
    Manifest,
)
from services.backup.database_dump import dump_database, size_and_sha256
from services.backup.orthanc_copy import (
    Progress,
    StorageCopy,
    copy_index,
    count_files,
    count_resources,
    file_chunks,
    ignore_progress,
)
from services.files import make_private_folder
from services.frames.signing import KEY_FILE_NAME
from services.sync.lease import pause_of_replacements
from services.tasks import finish_in_thread

_KEY_FILES = (KEY_FILE_NAME, MARK_NAME)
_PASSES = 10
"""How often the index is copied again because files were deleted since."""


@dataclass(frozen=True, slots=True)
class EmbeddedData:
    """What is saved besides the documents.

    Attributes:
        folder: The data directory, with keys and stores.
        orthanc_release: Of the embedded Orthanc; None: it is not embedded.
    """

    folder: Path
    orthanc_release: str | None


async def create_backup(
    database: AsyncDatabase[dict[str, Any]],
    data: EmbeddedData,
    folder: Path,
    *,
    now: datetime | None = None,
    on_progress: Progress = ignore_progress,
) -> Backup:
    """Make a backup.

    Args:
        database: The documents.
        data: The rest.
        folder: Of all backups; files that did not change are links to those of the one before.
        now: When it begins; None: now.
        on_progress: Told how many of Orthanc's files are done.

    Raises:
        BackupFailed: Another one is being made, or a store can't be copied.
        DatabaseUnavailable: MongoDB does not answer.
        OSError: The disk is full, or a folder can't be written.
    """
    created_at = now or datetime.now(UTC)
    async with locked_folder(folder):
        before = await finish_in_thread(catalogue.newest_readable, folder)
        name, partial = await finish_in_thread(catalogue.begin, folder, created_at)
        try:
            await finish_in_thread(_copy_keys, data.folder, partial / catalogue.KEYS)
            collections = await dump_database(database, partial / catalogue.MONGODB)
            studies, instances = (_count(collections, one) for one in _COUNTED)
            orthanc = None
            if data.orthanc_release is not None:
                files_before = folder / before.name / catalogue.STORAGE if before else None
                orthanc, replacements = await _copy_orthanc(
                    database, data, partial, files_before, on_progress
                )
                collections |= replacements
                index = partial / catalogue.INDEX
                studies, instances = await finish_in_thread(count_resources, index)
            manifest = Manifest(
                created_at=created_at,
                release=version("orthanc-graphql"),
                collections=collections,
                orthanc=orthanc,
                number_of_studies=studies,
                number_of_instances=instances,
            )
            return await finish_in_thread(catalogue.finish, folder, name, partial, manifest)
        except BaseException:
            await finish_in_thread(lambda: shutil.rmtree(partial, ignore_errors=True))
            raise


_COUNTED = (StudyDocument.Settings.name, InstanceDocument.Settings.name)


def _count(collections: dict[str, DumpedCollection], name: str) -> int:
    return collections[name].documents if name in collections else 0


async def _copy_orthanc(
    database: AsyncDatabase[dict[str, Any]],
    data: EmbeddedData,
    partial: Path,
    before: Path | None,
    on_progress: Progress,
) -> tuple[CopiedOrthanc, dict[str, DumpedCollection]]:
    source, index = data.folder / "orthanc", partial / catalogue.INDEX
    await finish_in_thread(make_private_folder, index.parent)
    storage = partial / catalogue.STORAGE
    copy = await finish_in_thread(StorageCopy, source / "storage", storage, before)
    for _ in range(_PASSES):
        async with pause_of_replacements(database).kept():
            replacements = await dump_database(
                # Of one moment: whether a job had ended decides about its files.
                database,
                partial / catalogue.MONGODB,
                only=(*REPLACEMENT_COLLECTIONS, JobDocument.Settings.name),
            )
            await finish_in_thread(copy_index, source / "index", index)
        total = await finish_in_thread(count_files, index)
        files = size = 0
        are_all_there = True
        async for chunk in file_chunks(index):
            are_all_there &= await finish_in_thread(copy.add_all, chunk)
            files += len(chunk)
            size += sum(one.size for one in chunk)
            on_progress(files, total)
        if are_all_there:
            index_size, sha256 = await finish_in_thread(size_and_sha256, index)
            copied = CopiedOrthanc(
                release=data.orthanc_release or "",
                index_size=index_size,
                index_sha256=sha256,
                files=files,
                size=size,
            )
            return copied, replacements
    raise BackupFailed(
        "Files that Orthanc's index names are missing in its storage: they are deleted faster than "
        "they can be copied, or the storage is damaged. Orthanc's log says more."
    )


def _copy_keys(data_dir: Path, target: Path) -> None:
    make_private_folder(target)
    for name in _KEY_FILES:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(data_dir / name, target / name)


@asynccontextmanager
async def locked_folder(folder: Path) -> AsyncIterator[None]:
    """Hold a backup folder for one backup or verification at a time.

    Raises:
        BackupFailed: It is in use.
    """
    with contextlib.ExitStack() as stack:
        await finish_in_thread(stack.enter_context, catalogue.locked(folder))
        yield
