import asyncio
import os
import stat
import sys
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest

from services.errors import InvalidInput
from services.frames.sealed_folder import SealedFolder
from services.frames.signing import FrameUrlKeys

KEYS = FrameUrlKeys((("k1", bytes(range(32))),))
OTHER_KEYS = FrameUrlKeys((("k1", bytes(32)),))
MIB = 1024 * 1024
PICTURE = b"\x89PNG of Zyxwvut^Canary" * 50


def folder_at(path: Path, *, max_bytes: int = MIB, keys: FrameUrlKeys = KEYS) -> SealedFolder:
    return SealedFolder(path, keys, max_bytes=max_bytes)


def files_of(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file())


def bytes_of(path: Path) -> int:
    return sum(-(-file.stat().st_size // 4096) * 4096 for file in files_of(path))


def test_what_was_written_is_read_by_the_next_process_too(tmp_path: Path) -> None:
    folder_at(tmp_path).write("a", "1", PICTURE)
    again = folder_at(tmp_path)
    assert again.read("a", "1") == PICTURE
    assert [again.read("a", "2"), again.read("b", "1")] == [None, None]


def test_a_later_write_replaces_an_earlier_one(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.write("a", "1", b"old")
    folder.write("a", "1", PICTURE)
    assert folder.read("a", "1") == PICTURE
    assert len(files_of(tmp_path)) == 1


def test_only_the_owner_of_the_process_may_look(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder_at(tmp_path).write("a", "1", PICTURE)
    finally:
        os.umask(before)
    (file,) = files_of(tmp_path)
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (file, file.parent, tmp_path / "frames")]
    assert modes == [0o600, 0o700, 0o700]


def test_a_folder_that_was_open_to_others_is_closed(tmp_path: Path) -> None:
    (tmp_path / "frames").mkdir(mode=0o755)
    folder_at(tmp_path)
    assert stat.S_IMODE((tmp_path / "frames").stat().st_mode) == 0o700


def test_names_and_contents_tell_nothing(tmp_path: Path) -> None:
    owner = "0a1b2c3d-4e5f6071-8293a4b5-c6d7e8f9-0a1b2c3d"
    folder_at(tmp_path / "one").write(owner, "deadbeef/0", PICTURE)
    folder_at(tmp_path / "other", keys=OTHER_KEYS).write(owner, "deadbeef/0", PICTURE)
    (one,), (other,) = files_of(tmp_path / "one"), files_of(tmp_path / "other")
    assert one.name != other.name
    assert b"Canary" not in one.read_bytes()
    assert not any(part in one.name for part in (*owner.split("-"), "deadbeef"))


@pytest.mark.parametrize(
    "spoil",
    [
        lambda sealed: sealed[:-1],
        lambda sealed: sealed + b"x",
        lambda sealed: sealed[:40] + bytes([sealed[40] ^ 1]) + sealed[41:],
        lambda _: b"",
        lambda sealed: sealed[:12],
        lambda _: PICTURE,
        lambda _: bytes(2 * MIB),
    ],
    ids=["cut", "longer", "one bit", "empty", "nonce only", "foreign", "huge"],
)
def test_what_is_damaged_or_foreign_is_not_read_and_goes(
    tmp_path: Path, spoil: Callable[[bytes], bytes]
) -> None:
    folder = folder_at(tmp_path)
    folder.write("a", "1", PICTURE)
    (file,) = files_of(tmp_path)
    file.write_bytes(spoil(file.read_bytes()))
    assert folder.read("a", "1") is None
    assert files_of(tmp_path) == []


def test_a_file_under_the_name_of_another_is_not_read(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    folder.write("a", "1", PICTURE)
    (one,) = files_of(tmp_path)
    folder.write("a", "2", b"another")
    (other,) = set(files_of(tmp_path)) - {one}
    one.replace(other)
    assert folder.read("a", "2") is None


def test_another_key_reads_nothing(tmp_path: Path) -> None:
    folder_at(tmp_path).write("a", "1", PICTURE)
    assert folder_at(tmp_path, keys=OTHER_KEYS).read("a", "1") is None
    assert folder_at(tmp_path).read("a", "1") == PICTURE


def test_5000_files_stay_within_the_bytes_and_the_last_used_stay(tmp_path: Path) -> None:
    folder = folder_at(tmp_path, max_bytes=4 * MIB)
    folder.write("kept", "1", PICTURE)
    most = 0
    for number in range(5000):
        folder.write(f"owner {number}", "1", PICTURE)
        if number % 50 == 0:
            assert folder.read("kept", "1") == PICTURE
            most = max(most, bytes_of(tmp_path))
    assert 3 * MIB <= most <= 4 * MIB
    assert folder.read("owner 4999", "1") == PICTURE
    assert folder.read("owner 0", "1") is None


def test_room_is_made_in_the_order_of_use_and_with_little_memory(tmp_path: Path) -> None:
    folder = folder_at(tmp_path, max_bytes=1024 * MIB)
    for number in range(6000):
        folder.write(f"owner {number}", "1", b"")
    now = time.time()
    ages = {file: 60 * number for number, file in enumerate(files_of(tmp_path))}
    for file, age in ages.items():
        os.utime(file, (now - age, now - age))
    small = folder_at(tmp_path, max_bytes=8 * MIB)
    tracemalloc.start()
    small._make_room()
    _, most_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most_bytes < MIB // 2
    kept = {ages[file] for file in files_of(tmp_path)}
    # 12 of 16 parts, in files of one block.
    assert len(kept) == 8 * MIB * 12 // 16 // 4096
    assert max(kept) <= 1.02 * min({*ages.values()} - kept)


def test_what_is_larger_than_a_part_of_the_limit_is_not_kept(tmp_path: Path) -> None:
    folder = folder_at(tmp_path, max_bytes=MIB)
    folder.write("a", "1", bytes(MIB // 16))
    assert files_of(tmp_path) == []


def test_owners_go_with_all_that_is_theirs(tmp_path: Path) -> None:
    folder = folder_at(tmp_path)
    for owner in ("a", "b", "c"):
        for name in ("1", "2"):
            folder.write(owner, name, PICTURE)
    assert folder.owners() == {folder.hash_owner(owner) for owner in ("a", "b", "c")}
    folder.remove({folder.hash_owner("a"), folder.hash_owner("c"), folder.hash_owner("unknown")})
    assert folder.owners() == {folder.hash_owner("b")}
    assert [folder.read("a", "1"), folder.read("b", "1")] == [None, PICTURE]


def test_files_of_others_in_the_folder_stay(tmp_path: Path) -> None:
    others = [tmp_path / "frames" / "notes.txt", tmp_path / "frames" / "00" / "notes.txt"]
    folder = folder_at(tmp_path, max_bytes=MIB)
    for other in others:
        other.parent.mkdir(exist_ok=True)
        other.write_bytes(bytes(2 * MIB))
        os.utime(other, (0, 0))
    for number in range(300):
        folder.write(f"owner {number}", "1", PICTURE)
    assert all(other.exists() for other in others)


def test_what_a_crash_left_half_written_goes_in_its_turn(tmp_path: Path) -> None:
    folder = folder_at(tmp_path, max_bytes=MIB)
    folder.write("a", "1", PICTURE)
    (file,) = files_of(tmp_path)
    draft = file.rename(f"{file}.0123456789abcdef.draft")
    os.utime(draft, (0, 0))
    assert folder.read("a", "1") is None
    for number in range(300):
        folder.write(f"owner {number}", "1", PICTURE)
    assert not draft.exists()


def test_a_link_in_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "frames").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match="belongs to somebody else"):
        folder_at(tmp_path)


def test_a_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidInput, match="can't be used: Not a directory"):
        folder_at(tmp_path / "file")


_PROCESS = """
import sys
from pathlib import Path
from services.frames.signing import FrameUrlKeys
from services.frames.sealed_folder import SealedFolder
folder = SealedFolder(Path(sys.argv[1]), FrameUrlKeys((("k1", bytes(32)),)), max_bytes=1 << 20)
for turn in range(1500):
    owner = str(turn % 400)
    folder.write(owner, "1", owner.encode() * 500)
    found = folder.read(str((turn * 7) % 400), "1")
    assert found in (None, str((turn * 7) % 400).encode() * 500), "another's picture"
    if turn % 100 == 99:
        folder.remove({folder.hash_owner(str(number)) for number in range(0, 400, 2)})
"""


async def test_two_processes_share_a_folder(tmp_path: Path) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", _PROCESS, str(tmp_path), stderr=asyncio.subprocess.PIPE
        )
        for _ in range(2)
    ]
    outcomes = [(await process.communicate())[1].decode() for process in processes]
    assert outcomes == ["", ""]
    assert await asyncio.to_thread(bytes_of, tmp_path) <= MIB
