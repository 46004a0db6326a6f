import io
import random
import zipfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from services.errors import FileRejected
from services.ingest.archives import ArchiveLimits, is_archive, members


def packed(*contents: tuple[str, bytes]) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents:
            archive.writestr(name, content)
    file.seek(0)
    return file


def unpacked(file: io.BytesIO, limits: ArchiveLimits) -> list[tuple[str, bytes | str]]:
    found: list[tuple[str, bytes | str]] = []
    for member in members(file, limits):
        if isinstance(member.content, FileRejected):
            found.append((member.name, member.content.code))
        else:
            with member.content as content:
                found.append((member.name, content.read()))
    return found


def refusal(action: Callable[[], object]) -> str:
    with pytest.raises(FileRejected) as caught:
        action()
    return caught.value.code


def test_an_archive_is_known_by_its_content() -> None:
    assert is_archive(packed(("a", b"a")))
    assert is_archive(packed())
    assert not is_archive(io.BytesIO(b""))
    assert not is_archive(io.BytesIO(b"DICM" * 50))


def test_a_dicom_file_with_an_archive_in_its_preamble_is_dicom() -> None:
    assert not is_archive(io.BytesIO(b"PK\x03\x04".ljust(128, b"\0") + b"DICM"))


def test_members_come_in_order_and_what_computers_add_is_passed_over() -> None:
    file = packed(
        ("folder/", b""),
        ("b", b"2"),
        ("__MACOSX/b", b"x"),
        ("folder/.DS_Store", b"x"),
        ("Thumbs.db", b"x"),
        ("DICOMDIR", b"x"),
        ("a", b"1"),
    )
    assert unpacked(file, ArchiveLimits()) == [("b", b"2"), ("a", b"1")]


def test_an_archive_inside_an_archive_is_not_unpacked() -> None:
    inner = packed(("a", b"a")).getvalue()
    assert unpacked(packed(("in.zip", inner), ("b", b"2")), ArchiveLimits()) == [
        ("in.zip", "NESTED_ARCHIVE"),
        ("b", b"2"),
    ]


def test_an_encrypted_member_does_not_fail_its_neighbour() -> None:
    body = bytearray(packed(("a", b"a"), ("b", b"2")).getvalue())
    body[6] |= 1
    body[body.index(b"PK\x01\x02") + 8] |= 1
    assert unpacked(io.BytesIO(body), ArchiveLimits()) == [("a", "ENCRYPTED"), ("b", b"2")]


def test_a_damaged_member_does_not_fail_its_neighbour() -> None:
    body = bytearray(packed(("a", b"hello" * 100), ("b", b"2")).getvalue())
    body[33] ^= 0xFF
    assert unpacked(io.BytesIO(body), ArchiveLimits()) == [("a", "DAMAGED_ARCHIVE"), ("b", b"2")]


def test_a_link_is_no_file() -> None:
    info = zipfile.ZipInfo("link")
    info.external_attr = 0o120777 << 16
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(info, "/etc/passwd")
    assert unpacked(file, ArchiveLimits()) == [("link", "NOT_DICOM")]


def test_a_member_that_is_compressed_too_highly_is_refused() -> None:
    file = packed(("bomb", bytes(20 * 1024 * 1024)), ("small", bytes(1024 * 1024)))
    found = dict(unpacked(file, ArchiveLimits()))
    assert found["bomb"] == "ARCHIVE_TOO_LARGE"
    assert len(found["small"]) == 1024 * 1024


def test_too_many_unpacked_bytes_stop_the_archive() -> None:
    unpacking = members(packed(("a", b"12345"), ("b", b"12345")), ArchiveLimits(max_bytes=8))
    first = next(unpacking)
    assert not isinstance(first.content, FileRejected)
    first.content.close()
    assert refusal(lambda: next(unpacking)) == "ARCHIVE_TOO_LARGE"


def test_too_many_members_are_refused_before_the_first() -> None:
    file = packed(*((str(number), b"") for number in range(3)))
    assert refusal(lambda: next(members(file, ArchiveLimits(max_members=2)))) == (
        "ARCHIVE_TOO_LARGE"
    )


def test_a_directory_far_too_large_is_refused_without_reading_it() -> None:
    file = packed(*((f"{number:0200}", b"") for number in range(30)))
    assert refusal(lambda: next(members(file, ArchiveLimits(max_members=1)))) == (
        "ARCHIVE_TOO_LARGE"
    )


def test_an_archive_without_files_says_so() -> None:
    assert refusal(lambda: next(members(packed(), ArchiveLimits()))) == "EMPTY_ARCHIVE"
    assert refusal(lambda: next(members(packed(("d/", b"")), ArchiveLimits()))) == "EMPTY_ARCHIVE"


def test_an_archive_that_was_cut_off_is_damaged() -> None:
    body = packed(("a", b"a" * 1000)).getvalue()[:-10]
    assert refusal(lambda: next(members(io.BytesIO(body), ArchiveLimits()))) == "DAMAGED_ARCHIVE"


def test_members_that_overlap_are_refused() -> None:
    body = bytearray(packed(("a", b"hello"), ("b", b"world")).getvalue())
    second = body.index(b"PK\x01\x02", body.index(b"PK\x01\x02") + 4)
    body[second + 42 : second + 46] = (0).to_bytes(4, "little")
    assert refusal(lambda: next(members(io.BytesIO(body), ArchiveLimits()))) == "DAMAGED_ARCHIVE"


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_rare_compressions_are_refused_before_they_are_unpacked(method: int) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a", b"hello" * 100, compress_type=method)
        archive.writestr("b", b"2")
    body = bytearray(file.getvalue())
    body[40:45] = bytes(5)
    assert unpacked(io.BytesIO(body), ArchiveLimits()) == [("a", "DAMAGED_ARCHIVE"), ("b", b"2")]


def test_damage_is_never_called_a_fault_of_the_disk(tmp_path: Path) -> None:
    whole = packed(*((f"{number}.dcm", bytes(range(256)) * number) for number in range(1, 6)))
    body = whole.getvalue()
    path = tmp_path / "damaged.zip"
    for seed in range(600):
        chance = random.Random(seed)  # noqa: S311  # repeatable, not secret
        damaged = bytearray(body)
        # Most of the directory and of its end are offsets and sizes.
        for _ in range(chance.randint(1, 4)):
            damaged[chance.randrange(len(body) - 400, len(body))] = chance.choice((0, 255, 127))
        path.write_bytes(damaged)
        with path.open("rb") as file, suppress(FileRejected):
            for member in members(file, ArchiveLimits()):
                if not isinstance(member.content, FileRejected):
                    member.content.close()


def test_a_directory_that_is_not_where_it_should_be_is_damage(tmp_path: Path) -> None:
    body = packed(("a.dcm", b"a"), ("b.dcm", b"b")).getvalue()
    path = tmp_path / "cut.zip"
    path.write_bytes(body[20:])
    with path.open("rb") as file:
        assert refusal(lambda: list(members(file, ArchiveLimits()))) == "DAMAGED_ARCHIVE"
