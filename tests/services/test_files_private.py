from pathlib import Path

import pytest

from services.files import keep_password, make_private_folder, write_private


def test_only_the_owner_may_read_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    path.write_text("old")
    path.chmod(0o644)
    write_private(path, "new")
    assert path.read_text() == "new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_only_the_owner_may_enter_a_private_folder(tmp_path: Path) -> None:
    make_private_folder(tmp_path / "folder")
    make_private_folder(tmp_path / "folder")
    assert (tmp_path / "folder").stat().st_mode & 0o777 == 0o700


def test_a_password_is_generated_once(tmp_path: Path) -> None:
    first = keep_password(tmp_path / "one")
    assert keep_password(tmp_path / "one") == first
    assert keep_password(tmp_path / "two") != first
    assert len(bytes.fromhex(first)) == 32


def test_a_file_that_is_not_written_whole_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "secret"
    write_private(path, "old")

    def fail(_descriptor: int) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        write_private(path, "new")
    assert path.read_text() == "old"
