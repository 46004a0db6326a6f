"""Finding files and remembering what was sent."""

import os
from pathlib import Path

from services.importing.folders import FoundFile, walk_files
from services.importing.journal import Journal


def test_files_are_found_in_order_without_what_computers_add(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    for name in ("b/2", "b/1", "a", "DICOMDIR", ".DS_Store", "._a"):
        (tmp_path / name).write_bytes(b"x")
    (tmp_path / "b" / "loop").symlink_to(tmp_path)
    found = [file.path.relative_to(tmp_path).as_posix() for file in walk_files([tmp_path])]
    assert found == ["a", "b/1", "b/2"]


def test_a_missing_path_is_found_with_its_error(tmp_path: Path) -> None:
    [found] = walk_files([tmp_path / "nowhere"])
    assert found == FoundFile(tmp_path / "nowhere", error="No such file or directory")


def test_the_journal_knows_files_that_did_not_change(tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    path.write_bytes(b"one")
    with Journal(tmp_path / "journals" / "import.sqlite3") as journal:
        [file] = walk_files([path])
        assert journal.look_up([file]) == {}
        journal.record([(file, ["i1", "i2"])])
        assert journal.look_up([file]) == {path: ("i1", "i2")}
    os.utime(path, ns=(1, 1))
    with Journal(tmp_path / "journals" / "import.sqlite3") as journal:
        assert journal.look_up([file]) == {path: ("i1", "i2")}
        assert journal.look_up(list(walk_files([path]))) == {}


def test_the_journal_is_asked_for_any_number_of_files(tmp_path: Path) -> None:
    files = [FoundFile(tmp_path / str(number), number, number) for number in range(1_201)]
    with Journal(tmp_path / "journal.sqlite3") as journal:
        journal.record((file, ["i"]) for file in files)
        assert len(journal.look_up(files)) == 1_201


def test_the_journal_knows_files_whose_names_are_no_text(tmp_path: Path) -> None:
    path = Path(os.fsdecode(bytes(tmp_path / "scan-") + b"\xe9.dcm"))
    path.write_bytes(b"one")
    [file] = walk_files([tmp_path])
    with Journal(tmp_path / "journals" / "import.sqlite3") as journal:
        journal.record([(file, ["i1"])])
        assert journal.look_up([file]) == {path: ("i1",)}


def test_links_that_lead_to_themselves_are_found_with_their_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "a")
    (tmp_path / "b").write_bytes(b"x")
    looping, whole = walk_files([tmp_path])
    assert looping == FoundFile(tmp_path / "a", error="Too many levels of symbolic links")
    assert whole.path == tmp_path / "b"


def test_a_path_that_is_a_looping_link_is_found_with_its_error(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to(tmp_path / "a")
    [looping] = walk_files([tmp_path / "a"])
    assert looping.error == "Too many levels of symbolic links"


def test_a_path_that_can_not_be_asked_for_is_found_with_its_error(tmp_path: Path) -> None:
    [found] = walk_files([tmp_path / ("x" * 300)])
    assert found.error == "File name too long"
