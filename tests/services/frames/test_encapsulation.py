import io
import struct
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.dicom.fragments import is_start
from services.errors import FrameNotRenderable
from services.frames.encapsulation import group_fragments, is_complete, read_fragments

DELIMITER = b"\xfe\xff\xdd\xe0\x00\x00\x00\x00"
A = [b"\xff\xd8AAAAAA", b"AAAAAA", b"AAAA\xff\xd9"]
B = [b"\xff\xd8BB\xff\xd9"]
C = [b"\xff\xd8CCCC", b"CC\xff\xd9"]
RLE = struct.pack("<16I", 1, 64, *[0] * 14)


def item(value: bytes) -> bytes:
    return b"\xfe\xff\x00\xe0" + len(value).to_bytes(4, "little") + value


def encapsulated(fragments: Sequence[bytes], table: Sequence[int] = ()) -> bytes:
    offsets = struct.pack(f"<{len(table)}I", *table)
    return b"head" + item(offsets) + b"".join(map(item, fragments)) + DELIMITER


def frames_of(fragments: Sequence[bytes], frames: int, table: Sequence[int] = ()) -> list[bytes]:
    content = encapsulated(fragments, table)
    found_table, found = read_fragments(io.BytesIO(content), 4)
    assert found_table == list(table)
    groups = group_fragments(found, found_table, frames)
    return [b"".join(content[one.begin : one.end] for one in group) for group in groups]


def right_table(frames: Sequence[Sequence[bytes]]) -> list[int]:
    offsets, at = [], 0
    for frame in frames:
        offsets.append(at)
        at += sum(8 + len(fragment) for fragment in frame)
    return offsets


@pytest.mark.parametrize(
    "table",
    [
        (),
        right_table([A, B, C]),
        # Of a writer that counts from the table itself, without item heads, from the wrong frame.
        (8, 54, 70),
        (0, 20, 26),
        (0, 16, 30),
        (0, 46),
        (0, 0, 0),
        (0, 46, 99_999),
    ],
)
def test_frames_of_several_fragments_are_found_with_right_wrong_and_no_table(
    table: Sequence[int],
) -> None:
    assert frames_of([*A, *B, *C], 3, table) == [b"".join(one) for one in (A, B, C)]


@pytest.mark.parametrize("table", [(), (0,), (77,), (0, 14)])
def test_all_fragments_of_a_single_frame_belong_to_it(table: Sequence[int]) -> None:
    assert frames_of(A, 1, table) == [b"".join(A)]


def test_as_many_fragments_as_frames_are_one_each_whatever_they_hold() -> None:
    assert frames_of([b"xx", b"yyyy"], 2, (0, 99)) == [b"xx", b"yyyy"]


def test_a_right_table_cuts_rle_and_its_mark_does_without() -> None:
    fragments = [RLE, b"more", RLE, b"rest"]
    for table in ((), (0, 84)):
        assert frames_of(fragments, 2, table) == [RLE + b"more", RLE + b"rest"]


@pytest.mark.parametrize(
    ("fragments", "frames"), [([b"xx", b"yy", b"zz"], 2), (A, 2), ([*A, *B], 5), ([b"xx", *A], 2)]
)
def test_frames_that_can_not_be_told_apart_are_refused(
    fragments: Sequence[bytes], frames: int
) -> None:
    with pytest.raises(FrameNotRenderable, match="can't be separated"):
        frames_of(fragments, frames)


def test_items_that_are_cut_off_are_refused() -> None:
    content = encapsulated(A)
    with pytest.raises(FrameNotRenderable):
        read_fragments(io.BytesIO(content[:15] + b"\xff\xff\xff"), 4)


@pytest.mark.no_cover
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=6),
    st.lists(st.integers(0, 200), max_size=8),
)
def test_no_table_ever_makes_another_picture(counts: list[int], table: list[int]) -> None:
    frames = [
        [b"\xff\xd8" + bytes([65 + place]) * 4, *[bytes([65 + place]) * 6] * (count - 1)]
        for place, count in enumerate(counts)
    ]
    expected = [b"".join(frame) for frame in frames]
    fragments = [fragment for frame in frames for fragment in frame]
    assert frames_of(fragments, len(frames), table) == expected


@pytest.mark.parametrize(
    ("frame", "complete"),
    [(b"".join(A), True), (b"".join(A) + b"\0", True), (A[0], False), (A[2], False),
     (b"\xff\x4f\xff\x51..\xff\xd9", True), (b"\xff\x4f\xff\x51..", False), (RLE, True),
     (b"", False), (b"\xff\x0a...", True)],
)  # fmt: skip
def test_a_whole_image_begins_and_ends_with_its_markers(frame: bytes, *, complete: bool) -> None:
    assert is_complete(frame) is complete
    assert is_start(frame) is complete or frame in (A[0], b"\xff\x4f\xff\x51..")
