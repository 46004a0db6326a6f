"""Verifying a backup: every byte is read, and the stores are started on copies of it."""

import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient

from models import InstanceDocument, StudyDocument
from services.backup import catalogue
from services.backup.catalogue import BackupFailed, CopiedOrthanc, Manifest
from services.backup.creation import locked_folder
from services.backup.database_dump import (
    count_documents,
    dump_path,
    load_database,
    size_and_sha256,
)
from services.backup.orthanc_copy import AttachedFile, Progress, file_chunks, ignore_progress
from services.embedded.mongod import run_mongod
from services.embedded.orthanc import run_orthanc
from services.files import make_private_folder
from services.orthanc.client import OrthancClient
from services.orthanc.transport import open_http_client
from services.tasks import finish_in_thread

_SHOWN_FAULTS = 20


@dataclass(frozen=True, slots=True)
class Verification:
    """What a verification found.

    Attributes:
        name: Of the backup.
        files: Of Orthanc that were read.
        studies: In the restored Orthanc, else in the restored MongoDB.
        instances: Likewise.
        unindexed: Instances of Orthanc's part that are not in MongoDB's: they arrived while the
            backup was made, and a restored server indexes them.
        faults: Sentences about what is missing or damaged; at most 20.
    """

    name: str
    files: int
    studies: int
    instances: int
    unindexed: int
    faults: tuple[str, ...]


async def verify_backup(
    folder: Path, name: str | None, *, on_progress: Progress = ignore_progress
) -> Verification:
    """Read every byte of a backup, and restore it beside without Orthanc's files.

    A MongoDB and an Orthanc of their own are started on copies of the index, in a temporary folder
    beside the backup, and count what they hold.

    Args:
        folder: Of all backups.
        name: Which; None: the newest.
        on_progress: Told how many of Orthanc's files are done.

    Returns:
        What was found; a backup without a fault is marked as verified.

    Raises:
        NotFound: There is no such backup.
        BackupFailed: It can't be read at all.
        EmbeddedStoreError: A store can't be started on the copy.
    """
    async with locked_folder(folder):
        backup = await finish_in_thread(catalogue.require_backup, folder, name)
        path, manifest = folder / backup.name, backup.manifest
        faults = [
            fault
            for one in manifest.collections
            if (fault := await finish_in_thread(_fault_of_dump, path, manifest, one))
        ]
        files = 0
        if manifest.orthanc is not None:
            index = path / catalogue.INDEX
            fault = await finish_in_thread(fault_of_index, index, manifest.orthanc)
            if fault:
                faults.append(fault)
            else:
                async for chunk in file_chunks(index):
                    faults += await finish_in_thread(_faults_of_files, path, chunk)
                    files += len(chunk)
                    on_progress(files, manifest.orthanc.files)
        studies = instances = unindexed = 0
        if not faults:
            studies, instances, unindexed = await _rehearse(folder, path, manifest)
            expected = (manifest.number_of_studies, manifest.number_of_instances)
            if (studies, instances) != expected:
                faults.append(
                    f"Restored: {studies} studies with {instances} instances; expected "
                    f"{expected[0]} with {expected[1]}."
                )
        if not faults:
            now = datetime.now(UTC)
            await finish_in_thread(catalogue.mark_verified, folder, backup.name, now)
        shown = tuple(faults[:_SHOWN_FAULTS])
        return Verification(backup.name, files, studies, instances, unindexed, shown)


def _fault_of_dump(path: Path, manifest: Manifest, name: str) -> str | None:
    expected = manifest.collections[name]
    file = dump_path(path / catalogue.MONGODB, name)
    try:
        size, sha256 = size_and_sha256(file)
        if (size, sha256) != (expected.size, expected.sha256):
            return f"The file {file.name} is damaged."
        if count_documents(file) != expected.documents:
            return f"The file {file.name} is not complete."
    except FileNotFoundError:
        return f"The file {file.name} is missing."
    except BackupFailed as exc:
        return exc.message
    return None


def fault_of_index(index: Path, expected: CopiedOrthanc) -> str | None:
    """Say what is wrong with the copy of the index; None: nothing. Blocks."""
    try:
        if size_and_sha256(index) != (expected.index_size, expected.index_sha256):
            return "Orthanc's index is damaged."
    except FileNotFoundError:
        return "Orthanc's index is missing."
    return None


def _faults_of_files(path: Path, chunk: list[AttachedFile]) -> list[str]:
    return [fault for one in chunk if (fault := _fault_of_file(path / catalogue.STORAGE, one))]


def _fault_of_file(storage: Path, file: AttachedFile) -> str | None:
    try:
        with (storage / file.path).open("rb") as opened:
            md5 = hashlib.file_digest(opened, _md5).hexdigest()
            size = opened.tell()
    except FileNotFoundError:
        return f"The file {file.path.name} is missing."
    except OSError as exc:
        return f"The file {file.path.name} can't be read: {exc.strerror}."
    if size != file.size or (file.md5 and md5 != file.md5):
        return f"The file {file.path.name} is damaged."
    return None


def _md5() -> Any:  # noqa: ANN401  # the type has no public name
    return hashlib.md5(usedforsecurity=False)


async def _rehearse(folder: Path, backup: Path, manifest: Manifest) -> tuple[int, int, int]:
    """Start stores on copies; returns studies, instances, and instances that are not indexed."""
    async with _temporary_folder(folder) as beside:
        async with (
            run_mongod(beside / "mongodb") as mongod,
            AsyncMongoClient[dict[str, Any]](mongod.url, tz_aware=True) as client,
        ):
            database = client["rehearsal"]
            await load_database(database, backup / catalogue.MONGODB, manifest.collections)
            studies = await database[StudyDocument.Settings.name].count_documents({})
            instances = await database[InstanceDocument.Settings.name].count_documents({})
        if manifest.orthanc is None:
            return studies, instances, 0
        await finish_in_thread(_prepare_orthanc, backup, beside / "orthanc")
        async with (
            run_orthanc(beside / "orthanc") as orthanc,
            open_http_client(orthanc.url, orthanc.username, orthanc.password) as http,
        ):
            held = await OrthancClient(http).statistics()
        return held.studies, held.instances, max(0, held.instances - instances)


@asynccontextmanager
async def _temporary_folder(parent: Path) -> AsyncIterator[Path]:
    made = Path(await finish_in_thread(lambda: tempfile.mkdtemp(prefix=".verify-", dir=parent)))
    try:
        yield made
    finally:
        await finish_in_thread(lambda: shutil.rmtree(made, ignore_errors=True))


def _prepare_orthanc(backup: Path, folder: Path) -> None:
    make_private_folder(folder / "index")
    shutil.copyfile(backup / catalogue.INDEX, folder / "index" / "index")
    (folder / "storage").symlink_to((backup / catalogue.STORAGE).absolute())
