"""Finding the files of an import, lazily: millions of them need no memory."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from services.ingest.archives import is_added_by_computers


@dataclass(frozen=True, slots=True)
class FoundFile:
    """A file to import.

    Attributes:
        path: Absolute.
        size_bytes: Its size.
        modified_ns: When it was last written, in nanoseconds since 1970.
        error: Why it can't be looked at, None when it can.
    """

    path: Path
    size_bytes: int = 0
    modified_ns: int = 0
    error: str | None = None


def walk_files(paths: Iterable[Path]) -> Iterator[FoundFile]:
    """Yield regular files under paths, folder by folder, in the order of their names.

    Symbolic links to folders are not followed, so that a loop ends. Blocking: use a thread.

    Args:
        paths: Files and folders; one that is missing is yielded with its error.
    """
    for path in paths:
        absolute = path.absolute()
        try:
            is_folder = absolute.is_dir()
        except OSError as exc:
            yield FoundFile(absolute, error=exc.strerror or type(exc).__name__)
            continue
        if is_folder:
            yield from _walk_folder(absolute)
        else:
            yield _found(absolute)


def _walk_folder(folder: Path) -> Iterator[FoundFile]:
    try:
        with os.scandir(folder) as scan:
            entries = sorted(scan, key=lambda entry: entry.name)
    except OSError as exc:
        yield FoundFile(folder, error=exc.strerror or type(exc).__name__)
        return
    for entry in entries:
        path = Path(entry.path)
        try:
            is_folder, is_file = entry.is_dir(follow_symlinks=False), entry.is_file()
        except OSError as exc:
            yield FoundFile(path, error=exc.strerror or type(exc).__name__)
            continue
        if is_folder:
            yield from _walk_folder(path)
        elif is_file and not is_added_by_computers(entry.name):
            yield _found(path)


def _found(path: Path) -> FoundFile:
    try:
        status = path.stat()
    except OSError as exc:
        return FoundFile(path, error=exc.strerror or type(exc).__name__)
    return FoundFile(path, status.st_size, status.st_mtime_ns)
