"""Copying an SQLite index that its owner writes and does not share."""

import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from services.backup.catalogue import BackupFailed
from services.backup.orthanc_copy import (
    AttachedFile,
    StorageCopy,
    attached_files,
    check_index,
    copy_index,
    count_files,
    count_resources,
    forget_jobs,
)

SCHEMA = """
CREATE TABLE GlobalProperties(property INTEGER PRIMARY KEY, value TEXT);
CREATE TABLE Resources(internalId INTEGER PRIMARY KEY, resourceType INTEGER);
CREATE TABLE AttachedFiles(id INTEGER, uuid TEXT, compressedSize INTEGER, compressedMD5 TEXT);
INSERT INTO GlobalProperties VALUES (1, '6');
"""
"""What is read of Orthanc's index, by its names."""


def opened(folder: Path, *, checkpoint_pages: int = 1000) -> sqlite3.Connection:
    """Open an index as Orthanc does."""
    folder.mkdir()
    database = sqlite3.connect(folder / "index", check_same_thread=False, isolation_level=None)
    database.executescript(
        f"PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; "
        f"PRAGMA wal_autocheckpoint={checkpoint_pages}; {SCHEMA}"
    )
    return database


def store(database: sqlite3.Connection, number: int) -> None:
    """Store an instance and its file in one transaction."""
    database.execute("BEGIN")
    database.execute("INSERT INTO Resources VALUES (?, 4)", (number,))
    row = (number, f"{number:08x}-" + "x" * 100, 10, "")
    database.execute("INSERT INTO AttachedFiles VALUES (?, ?, ?, ?)", row)
    database.execute("COMMIT")


@contextmanager
def written_all_the_time(database: sqlite3.Connection) -> Iterator[None]:
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            store(database, number)
            number += 1
            stop.wait(0.0002)

    writing = threading.Thread(target=write)
    writing.start()
    try:
        yield
    finally:
        stop.set()
        writing.join()


def test_a_copy_is_of_one_moment_while_the_index_is_written(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    counts = []
    with (
        closing(opened(tmp_path / "index", checkpoint_pages=20)) as database,
        written_all_the_time(database),
    ):
        for _ in range(30):
            copy_index(tmp_path / "index", copy)
            check_index(copy, is_thorough=True)
            _, instances = count_resources(copy)
            assert instances == count_files(copy)
            counts.append(instances)
    assert counts == sorted(counts)
    assert counts[-1] > counts[0]


def test_a_log_that_starts_anew_while_the_index_is_copied_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copyfile = shutil.copyfile
    numbers = iter(range(1000))
    with closing(opened(tmp_path / "index", checkpoint_pages=5)) as database:
        store(database, next(numbers))

        def copy_and_write(source: Path, target: Path) -> None:
            copyfile(source, target)
            if source.name == "index" and next(numbers) < 100:
                for _ in range(50):
                    store(database, next(numbers))

        monkeypatch.setattr(shutil, "copyfile", copy_and_write)
        copy_index(tmp_path / "index", tmp_path / "copy")
        [held] = database.execute("SELECT COUNT(*) FROM Resources").fetchone()
    check_index(tmp_path / "copy", is_thorough=True)
    assert count_resources(tmp_path / "copy") == (0, held)
    assert count_files(tmp_path / "copy") == held


def test_what_the_log_alone_holds_is_in_the_copy(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "index")) as database:
        store(database, 1)
        copy_index(tmp_path / "index", tmp_path / "copy")
    assert count_resources(tmp_path / "copy") == (0, 1)
    assert [path.name for path in tmp_path.glob("copy*")] == ["copy"]


def test_an_index_that_never_rests_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    headers = iter(range(1000))
    name = "services.backup.orthanc_copy"
    monkeypatch.setattr(f"{name}._log_header", lambda _: str(next(headers)).encode())
    monkeypatch.setattr(f"{name}._INDEX_SECONDS", 0.0)
    with closing(opened(tmp_path / "index")), pytest.raises(BackupFailed, match="too fast"):
        copy_index(tmp_path / "index", tmp_path / "copy")


def test_a_damaged_index_and_an_unknown_one_are_refused(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(b"x" * 10_000)
    with pytest.raises(BackupFailed, match="damaged"):
        check_index(tmp_path / "noise", is_thorough=False)
    with closing(opened(tmp_path / "index")) as database:
        database.execute("UPDATE GlobalProperties SET value = '7'")
        with pytest.raises(BackupFailed, match="does not know"):
            copy_index(tmp_path / "index", tmp_path / "copy")


def test_jobs_of_orthanc_are_forgotten(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "index")) as database:
        database.execute("INSERT INTO GlobalProperties VALUES (5, 'jobs')")
        copy_index(tmp_path / "index", tmp_path / "copy")
    forget_jobs(tmp_path / "copy")
    with closing(sqlite3.connect(tmp_path / "copy")) as copy:
        assert copy.execute("SELECT property FROM GlobalProperties").fetchall() == [(1,)]


def test_files_are_where_orthanc_stores_them(tmp_path: Path) -> None:
    with closing(opened(tmp_path / "index")) as database:
        store(database, 0xABCDEF01)
        copy_index(tmp_path / "index", tmp_path / "copy")
    [file] = attached_files(tmp_path / "copy")
    assert file == AttachedFile(Path("ab", "cd", "abcdef01-" + "x" * 100), 10, "")


def test_files_are_linked_to_those_of_the_backup_before(tmp_path: Path) -> None:
    source, first, second = (tmp_path / name for name in ("source", "first", "second"))
    names = [Path("aa", "bb", name) for name in ("one", "two", "three")]
    (source / "aa/bb").mkdir(parents=True)
    for name in names[:2]:
        (source / name).write_bytes(b"0123456789")
    files = [AttachedFile(name, 10, "") for name in names]
    copy = StorageCopy(source, first, None)
    assert copy.add_all(files[:2])
    assert copy.add_all(files) is False
    # What is damaged in the backup before is copied again.
    (first / names[1]).write_bytes(b"short")
    assert StorageCopy(source, second, first).add_all(files[:2])
    assert (second / names[0]).samefile(first / names[0])
    assert not (second / names[0]).samefile(source / names[0])
    assert (second / names[1]).read_bytes() == b"0123456789"
