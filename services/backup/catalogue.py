"""What lies in a backup folder: one folder for each backup, with a manifest.

FOLDER/
  2026-11-27T194500Z/
    manifest.json          written last: a folder without it is no backup
    verified.json          when it was verified, if it was
    keys/                  what signs URLs, and the mark that there are credentials
    mongodb/NAME.bson.gz   the documents of a collection, as mongodump --gzip writes them
    orthanc/index          Orthanc's index (SQLite)
    orthanc/storage/       Orthanc's files: the same inodes as in the backup before
"""

import fcntl
import logging
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from services.errors import Error, NotFound
from services.files import make_private_folder, write_private

MANIFEST, VERIFIED = "manifest.json", "verified.json"
KEYS, MONGODB, INDEX, STORAGE = "keys", "mongodb", "orthanc/index", "orthanc/storage"

_log = logging.getLogger(__name__)

_NAME = re.compile(r"\d{4}-\d\d-\d\dT\d{6}Z", re.ASCII)
_NAME_FORMAT = "%Y-%m-%dT%H%M%SZ"
_PARTIAL = ".partial"
_LOCK = ".lock"

_FORMAT = 1
"""Of the layout above; a reader refuses what is newer."""


class BackupFailed(Error):
    """A backup can't be made, read or restored."""

    code = "BACKUP_FAILED"
    default_message = "The backup failed."


class _Json(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True
    )


class DumpedCollection(_Json):
    """The file of a collection.

    Attributes:
        documents: How many.
        size: Of the file, in bytes.
        sha256: Of the file, 64 hex digits.
    """

    documents: int
    size: int
    sha256: str


class CopiedOrthanc(_Json):
    """Orthanc's part.

    Attributes:
        release: As `/system` said.
        index_size: In bytes.
        index_sha256: 64 hex digits.
        files: In the storage.
        size: Of these files, in bytes.
    """

    release: str
    index_size: int
    index_sha256: str
    files: int
    size: int


class Manifest(_Json):
    """What a backup holds.

    Attributes:
        created_at: When it was begun; everything before is in it.
        release: Of this server.
        orthanc: None where Orthanc is not embedded: its own tools save it.
        number_of_studies: In Orthanc's part, else in MongoDB's.
        number_of_instances: Likewise.
    """

    format: int = _FORMAT
    created_at: datetime
    release: str
    collections: dict[str, DumpedCollection]
    orthanc: CopiedOrthanc | None
    number_of_studies: int
    number_of_instances: int

    @property
    def size(self) -> int:
        """All its files in bytes, those that it shares with other backups included."""
        dumped = sum(one.size for one in self.collections.values())
        if self.orthanc is None:
            return dumped
        return dumped + self.orthanc.index_size + self.orthanc.size


class Verified(_Json):
    """When a backup was verified."""

    at: datetime


class Backup(_Json):
    """A complete backup.

    Attributes:
        name: Of its folder.
        verified_at: When it was last verified without a fault; None: never.
    """

    name: str
    manifest: Manifest
    verified_at: datetime | None


def list_backups(folder: Path) -> list[Backup]:
    """Return the complete backups of a folder, the newest first; blocks.

    Raises:
        OSError: The folder can't be read.
    """
    if not folder.is_dir():
        return []
    names = sorted((path.name for path in folder.iterdir()), reverse=True)
    found = (read_backup(folder, name) for name in names if _NAME.fullmatch(name))
    return [backup for backup in found if backup is not None]


def newest_readable(folder: Path) -> Backup | None:
    """Return the newest backup that can be read: a damaged one must not prevent a new one. Blocks.

    Raises:
        OSError: The folder can't be read.
    """
    for name in sorted((path.name for path in folder.iterdir()), reverse=True):
        try:
            backup = read_backup(folder, name)
        except BackupFailed as exc:
            _log.error("%s Remove it when there is a new one.", exc.message)
            continue
        if backup is not None:
            return backup
    return None


def read_backup(folder: Path, name: str) -> Backup | None:
    """Read what a backup says of itself; None when there is no complete one of this name. Blocks.

    Raises:
        BackupFailed: Its manifest is damaged, or of a newer release.
    """
    if not _NAME.fullmatch(name):
        return None
    try:
        text = (folder / name / MANIFEST).read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    try:
        manifest = Manifest.model_validate_json(text)
    except ValidationError as exc:
        raise BackupFailed(f"The manifest of the backup {name} is damaged.") from exc
    if manifest.format > _FORMAT:
        raise BackupFailed(f"The backup {name} was made by a newer release of this server.")
    return Backup(name=name, manifest=manifest, verified_at=_verified_at(folder / name))


def require_backup(folder: Path, name: str | None) -> Backup:
    """Read a backup, or the newest one. Blocks.

    Raises:
        NotFound: There is none.
        BackupFailed: Its manifest is damaged, or of a newer release.
    """
    backup = read_backup(folder, name) if name else next(iter(list_backups(folder)), None)
    if backup is None:
        raise NotFound(f"There is no backup {name}." if name else "There is no backup.")
    return backup


def _verified_at(backup: Path) -> datetime | None:
    try:
        text = (backup / VERIFIED).read_text(encoding="utf-8")
        return Verified.model_validate_json(text).at
    except (FileNotFoundError, ValidationError):
        return None


def mark_verified(folder: Path, name: str, at: datetime) -> None:
    """Note that a backup was verified without a fault; blocks."""
    write_private(folder / name / VERIFIED, Verified(at=at).model_dump_json(by_alias=True))


def remove_oldest(folder: Path, keep: int) -> list[str]:
    """Remove the oldest complete backups; blocks.

    Args:
        folder: Of the backups.
        keep: How many stay, 1 at least.

    Returns:
        The names of those that were removed.

    Raises:
        BackupFailed: A backup is being made or verified.
    """
    with locked(folder):
        names = [backup.name for backup in list_backups(folder)[max(1, keep) :]]
        for name in names:
            # Without its manifest it is no backup any more, whatever happens next.
            (folder / name / MANIFEST).unlink()
            shutil.rmtree(folder / name)
        return names


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a backup folder for one backup at a time; blocks for a moment only.

    Raises:
        BackupFailed: Another process makes or verifies a backup there.
    """
    make_private_folder(folder)
    descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise BackupFailed("A backup is being made or verified in this folder.") from exc
        yield
    finally:
        os.close(descriptor)


def begin(folder: Path, created_at: datetime) -> tuple[str, Path]:
    """Remove what unfinished backups left, and make the folder of a new one; blocks.

    Returns:
        The name that it will have, and its folder meanwhile.

    Raises:
        BackupFailed: There is one of this second.
    """
    for leftover in folder.glob(f"*{_PARTIAL}"):
        shutil.rmtree(leftover)
    name = created_at.astimezone(UTC).strftime(_NAME_FORMAT)
    if (folder / name).exists():
        raise BackupFailed(f"There is a backup {name} already.")
    partial = folder / f"{name}{_PARTIAL}"
    make_private_folder(partial)
    return name, partial


def finish(folder: Path, name: str, partial: Path, manifest: Manifest) -> Backup:
    """Write the manifest when everything is on the disk, and give the folder its name; blocks."""
    os.sync()
    write_private(partial / MANIFEST, manifest.model_dump_json(by_alias=True, indent=2))
    partial.rename(folder / name)
    return Backup(name=name, manifest=manifest, verified_at=None)
