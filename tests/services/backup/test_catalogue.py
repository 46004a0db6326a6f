"""What lies in a backup folder."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from services.backup.catalogue import (
    MANIFEST,
    BackupFailed,
    Manifest,
    begin,
    finish,
    list_backups,
    locked,
    mark_verified,
    newest_readable,
    remove_oldest,
    require_backup,
)
from services.errors import NotFound

NOON = datetime(2026, 11, 27, 12, tzinfo=UTC)
MANIFEST_OF_NOON = Manifest(
    created_at=NOON,
    release="1.0",
    collections={},
    orthanc=None,
    number_of_studies=1,
    number_of_instances=2,
)


def made(folder: Path, hours: int = 0) -> str:
    name, partial = begin(folder, NOON + timedelta(hours=hours))
    return finish(folder, name, partial, MANIFEST_OF_NOON).name


def test_backups_are_listed_the_newest_first(tmp_path: Path) -> None:
    assert list_backups(tmp_path / "missing") == []
    names = [made(tmp_path, hours) for hours in (0, 2, 1)]
    assert names[0] == "2026-11-27T120000Z"
    assert [one.name for one in list_backups(tmp_path)] == [names[1], names[2], names[0]]
    assert require_backup(tmp_path, None).name == names[1]
    mark_verified(tmp_path, names[1], NOON)
    assert require_backup(tmp_path, names[1]).verified_at == NOON
    assert require_backup(tmp_path, names[0]).verified_at is None


def test_what_is_not_finished_is_no_backup_and_is_removed(tmp_path: Path) -> None:
    name, partial = begin(tmp_path, NOON)
    (partial / "x").write_text("x")
    assert list_backups(tmp_path) == []
    made(tmp_path, 1)
    assert not partial.exists()
    (tmp_path / name).mkdir()
    assert [one.name for one in list_backups(tmp_path)] == ["2026-11-27T130000Z"]


@pytest.mark.parametrize("name", ["2026-11-27T130000Z", "../2026-11-27T120000Z", ".", ""])
def test_a_backup_that_is_not_there_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(NotFound):
        require_backup(tmp_path, name)


def test_damaged_and_newer_manifests_are_refused(tmp_path: Path) -> None:
    manifest = tmp_path / made(tmp_path) / MANIFEST
    text = manifest.read_text()
    manifest.write_text(text.replace('"format": 1', '"format": 2'))
    with pytest.raises(BackupFailed, match="newer release"):
        list_backups(tmp_path)
    manifest.write_text(text[:-10])
    with pytest.raises(BackupFailed, match="damaged"):
        list_backups(tmp_path)


def test_a_damaged_backup_does_not_prevent_a_new_one(tmp_path: Path) -> None:
    assert newest_readable(tmp_path) is None
    older, newer = made(tmp_path), made(tmp_path, 1)
    (tmp_path / newer / MANIFEST).write_text("{")
    found = newest_readable(tmp_path)
    assert found is not None
    assert found.name == older


def test_one_backup_at_a_time_uses_the_folder(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(BackupFailed, match="being made"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_two_backups_of_one_second_are_refused(tmp_path: Path) -> None:
    made(tmp_path)
    with pytest.raises(BackupFailed, match="already"):
        begin(tmp_path, NOON)


def test_the_oldest_are_removed(tmp_path: Path) -> None:
    names = [made(tmp_path, hours) for hours in range(4)]
    assert remove_oldest(tmp_path, 2) == [names[1], names[0]]
    assert [one.name for one in list_backups(tmp_path)] == [names[3], names[2]]
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", names[2], names[3]]


def test_only_the_owner_may_enter(tmp_path: Path) -> None:
    folder = tmp_path / made(tmp_path)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert (folder / MANIFEST).stat().st_mode & 0o777 == 0o600
