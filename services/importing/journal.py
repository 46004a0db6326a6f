"""Journal of the files that were sent, so that a repeated import skips them."""

import os
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from services.importing.folders import FoundFile

_SCHEMA = """
CREATE TABLE IF NOT EXISTS sent_files (
    path BLOB PRIMARY KEY,
    size_bytes INTEGER NOT NULL,
    modified_ns INTEGER NOT NULL,
    instance_ids TEXT NOT NULL
) WITHOUT ROWID
"""
"""Paths are bytes: not every name of a file is text."""

_MAX_VARIABLES = 500
"""SQLite takes 999 in its oldest builds."""


class Journal:
    """A file of SQLite; blocking, so use it in a thread, but in one at a time."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._connection = sqlite3.connect(path, check_same_thread=False, timeout=30)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.execute(_SCHEMA)
        path.chmod(0o600)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._connection.close()

    def look_up(self, files: Sequence[FoundFile]) -> dict[Path, tuple[str, ...]]:
        """Return the instances of those files that were sent and did not change since.

        Args:
            files: By path, size and time of their last writing.
        """
        found: dict[bytes, tuple[int, int, str]] = {}
        for start in range(0, len(files), _MAX_VARIABLES):
            paths = [os.fsencode(file.path) for file in files[start : start + _MAX_VARIABLES]]
            marks = ",".join("?" * len(paths))
            query = f"SELECT * FROM sent_files WHERE path IN ({marks})"  # noqa: S608  # question marks only
            for path, size, modified, ids in self._connection.execute(query, paths):
                found[path] = (size, modified, ids)
        return {
            file.path: tuple(entry[2].split())
            for file in files
            if (entry := found.get(os.fsencode(file.path))) is not None
            and entry[:2] == (file.size_bytes, file.modified_ns)
        }

    def record(self, sent: Iterable[tuple[FoundFile, Sequence[str]]]) -> None:
        """Record files that were stored; durable when this returns.

        Args:
            sent: Files with Orthanc's ids of the instances in them.
        """
        rows = [
            (os.fsencode(file.path), file.size_bytes, file.modified_ns, " ".join(instance_ids))
            for file, instance_ids in sent
        ]
        with self._connection:
            self._connection.executemany(
                "INSERT OR REPLACE INTO sent_files VALUES (?, ?, ?, ?)", rows
            )
