from pathlib import Path

import pytest

from services.files import (
    PrivateFileUnusable,
    keep_password,
    make_private_folder,
    read_private,
    write_private,
)


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


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\xfe\0\1", "geheim\u00fc".encode()])
def test_a_secret_that_is_empty_or_no_text_is_refused_with_what_to_do(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "password"
    write_private(path, "")
    path.write_bytes(content)
    for read in (read_private, keep_password):
        with pytest.raises(PrivateFileUnusable, match="Restore it from a backup"):
            read(path)
    assert path.read_bytes() == content


@pytest.mark.parametrize("mode", [0o777, 0o644, 0o640, 0o620, 0o601])
def test_a_secret_that_others_may_read_or_change_is_refused(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "password"
    keep_password(path)
    path.chmod(mode)
    with pytest.raises(PrivateFileUnusable, match=f"mode {mode:04o}.*Run: chmod 600"):
        keep_password(path)


def test_a_secret_is_read_without_the_white_space_around_it(tmp_path: Path) -> None:
    write_private(tmp_path / "secret", " key\n")
    assert read_private(tmp_path / "secret") == "key"
