"""A copy of the embedded Orthanc's index and files while it runs.

Orthanc opens its SQLite index exclusively: no other program may read it through SQLite. Its files
can be copied: `index`, and the write-ahead log `index-wal`, which SQLite replays over it. A page
that is written back into `index` while it is copied is still in the log, so both together are
right unless the log was started anew meanwhile; its header tells (https://sqlite.org/fileformat2.html,
section 4.1). Then it is copied again.

The index comes first: what it names was complete when it was copied. A file that is missing by then
was deleted, and the index is copied again, so that no backup names a file that it has not.
"""

import shutil
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from urllib.parse import quote

from services.backup.catalogue import BackupFailed
from services.files import make_private_folder
from services.tasks import finish_in_thread

_WAL_HEADER_BYTES = 32
_INDEX_SECONDS = 60.0
"""How long a moment is looked for in which the index does not change too fast."""
_PAUSE_SECONDS = 0.05

_SCHEMA_VERSION = "6"
"""Of Orthanc's index since 0.9.5, 1.13.0 included."""

_JOBS_REGISTRY = 5
"""`property` of Orthanc's table `GlobalProperties` that holds its jobs."""

_STUDY, _INSTANCE = 2, 4
"""`resourceType` of Orthanc's table `Resources`."""


_CHUNK = 200
"""Files that are copied, or read, between two looks at whether the work should go on."""

Progress = Callable[[int, int], None]
"""Called with the number of files that are done, and of all."""


def ignore_progress(_done: int, _total: int) -> None:
    """Report nothing."""


@dataclass(frozen=True, slots=True)
class AttachedFile:
    """A file that the index names.

    Attributes:
        path: Below the storage folder.
        size: In bytes, as stored.
        md5: Of what is stored, 32 hex digits; `""` where Orthanc does not compute it.
    """

    path: Path
    size: int
    md5: str


def copy_index(index_folder: Path, target: Path) -> None:
    """Copy a running Orthanc's index into one file; blocks.

    Args:
        index_folder: Holds `index` and `index-wal`.
        target: A new file; one that is there is replaced.

    Raises:
        BackupFailed: It changes too fast, or the copy is damaged.
        OSError: It is not there, or the disk is full.
    """
    source, log = index_folder / "index", index_folder / "index-wal"
    target_log = target.with_name(target.name + "-wal")
    deadline = time.monotonic() + _INDEX_SECONDS
    while True:
        before = _log_header(log)
        shutil.copyfile(source, target)
        target_log.unlink(missing_ok=True)
        if before:
            shutil.copyfile(log, target_log)
        if _log_header(log) == before:
            break
        if time.monotonic() > deadline:
            raise BackupFailed(
                "Orthanc's index changes too fast to be copied. Try again when fewer files arrive."
            )
        time.sleep(_PAUSE_SECONDS)
    target.chmod(0o600)
    check_index(target, is_thorough=False)


def _log_header(log: Path) -> bytes:
    """Return what changes when SQLite starts its log anew; empty when there is no log."""
    try:
        with log.open("rb") as file:
            return file.read(_WAL_HEADER_BYTES)
    except FileNotFoundError:
        return b""


def check_index(index: Path, *, is_thorough: bool) -> None:
    """Let SQLite check a copy of the index, and write its log into it; blocks.

    Raises:
        BackupFailed: It is damaged, or of a release that is not known here.
    """
    check = "PRAGMA integrity_check" if is_thorough else "PRAGMA quick_check"
    try:
        with closing(sqlite3.connect(index)) as database:
            [found] = database.execute(check).fetchone()
            version = database.execute(
                "SELECT value FROM GlobalProperties WHERE property = 1"
            ).fetchone()
            # One file: also for a copy that may not be written to, later.
            database.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.DatabaseError as exc:
        raise BackupFailed("The copy of Orthanc's index is damaged.", detail=str(exc)) from exc
    if found != "ok":
        raise BackupFailed("The copy of Orthanc's index is damaged.", detail=str(found))
    if version != (_SCHEMA_VERSION,):
        raise BackupFailed(
            "Orthanc's index has a format that this server does not know. Use Orthanc's own "
            "procedure: https://orthanc.uclouvain.be/book/users/backup.html"
        )


def attached_files(index: Path) -> Generator[AttachedFile, None, None]:
    """Read which files a copy of the index names; blocks.

    Orthanc stores the file `aabb...` as `aa/bb/aabb...`.
    """
    with closing(_open(index)) as database:
        rows = database.execute("SELECT uuid, compressedSize, compressedMD5 FROM AttachedFiles")
        for uuid, size, md5 in rows:
            yield AttachedFile(Path(uuid[:2], uuid[2:4], uuid), int(size), md5 or "")


def count_files(index: Path) -> int:
    """Return how many files a copy of the index names; blocks."""
    with closing(_open(index)) as database:
        [count] = database.execute("SELECT COUNT(*) FROM AttachedFiles").fetchone()
    return int(count)


def count_resources(index: Path) -> tuple[int, int]:
    """Return the numbers of studies and instances of a copy of the index; blocks."""
    with closing(_open(index)) as database:
        counts = dict(
            database.execute("SELECT resourceType, COUNT(*) FROM Resources GROUP BY resourceType")
        )
    return counts.get(_STUDY, 0), counts.get(_INSTANCE, 0)


def _open(index: Path) -> sqlite3.Connection:
    # Threads of a pool read one after another.
    return sqlite3.connect(
        f"file:{quote(str(index))}?mode=ro&immutable=1", uri=True, check_same_thread=False
    )


def forget_jobs(index: Path) -> None:
    """Remove Orthanc's own jobs from an index; blocks.

    Orthanc would go on with those that ran when the index was copied, and send files again.
    """
    with closing(sqlite3.connect(index, isolation_level=None)) as database:
        database.execute("DELETE FROM GlobalProperties WHERE property = ?", (_JOBS_REGISTRY,))


async def file_chunks(index: Path) -> AsyncIterator[list[AttachedFile]]:
    """Read which files a copy of the index names, a few hundred at a time."""
    reading = attached_files(index)
    try:
        while chunk := await finish_in_thread(_take, reading):
            yield chunk
    finally:
        await finish_in_thread(reading.close)


def _take(reading: Iterator[AttachedFile]) -> list[AttachedFile]:
    return list(islice(reading, _CHUNK))


class StorageCopy:
    """Copies stored files; those of an earlier backup become links to the same inodes.

    Orthanc never changes a file that it has stored.

    Args:
        source: Orthanc's storage folder.
        target: Of the backup; created.
        before: Of the backup before; None: there is none.
    """

    def __init__(self, source: Path, target: Path, before: Path | None) -> None:
        self._source = source
        self._target = target
        self._before = before
        make_private_folder(target)

    def add(self, file: AttachedFile) -> bool:
        """Copy or link a file; blocks.

        Returns:
            False when it was deleted.

        Raises:
            OSError: The disk is full.
        """
        target = self._target / file.path
        if target.exists():
            return True
        make_private_folder(target.parent)
        if self._before is not None and self._link(self._before / file.path, target, file.size):
            return True
        try:
            shutil.copyfile(self._source / file.path, target)
        except FileNotFoundError:
            return False
        return True

    def add_all(self, files: Iterable[AttachedFile]) -> bool:
        """Copy or link files; blocks.

        Returns:
            False when one was deleted.
        """
        added = [self.add(file) for file in files]
        return all(added)

    @staticmethod
    def _link(before: Path, target: Path, size: int) -> bool:
        try:
            if before.stat().st_size != size:
                return False
            target.hardlink_to(before)
        except OSError:
            # Not there, or a file system without hard links: a copy does as well.
            return False
        return True
