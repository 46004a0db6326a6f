import contextlib
import io
import struct
import zlib
from collections.abc import Callable

import pytest

from services.dicom.layout import WalkLimits
from services.dicom.parser import walk
from services.errors import FileRejected

_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
_ITEM_END = struct.pack("<HHI", 0xFFFE, 0xE00D, 0)
_SEQUENCE_END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
_SEQUENCE = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff"
_PIXEL_DATA_AT = 6288


class _CountingFile(io.BytesIO):
    bytes_read = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.bytes_read += len(content)
        return content


def _nested(depth: int) -> bytes:
    return (_SEQUENCE + _ITEM) * depth + (_ITEM_END + _SEQUENCE_END) * depth


def _nested_with_lengths(depth: int) -> bytes:
    value = b""
    for _ in range(depth):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
        value = _SEQUENCE[:8] + struct.pack("<I", len(item)) + item
    return value


def _spliced(ct_bytes: bytes, elements: bytes) -> io.BytesIO:
    return io.BytesIO(ct_bytes[:_PIXEL_DATA_AT] + elements + ct_bytes[_PIXEL_DATA_AT:])


def _rejection(file: io.BytesIO, limits: WalkLimits | None = None) -> FileRejected:
    with pytest.raises(FileRejected) as caught:
        walk(file, limits)
    return caught.value


def test_the_layout_of_a_ct(ct_bytes: bytes) -> None:
    layout = walk(io.BytesIO(ct_bytes))
    assert layout.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert (layout.has_preamble, layout.meta_offset, layout.dataset_offset) == (True, 132, 336)
    assert (layout.pixel_data_offset, layout.pixel_data_length) == (6300, 32768)
    assert (layout.end_offset, layout.file_size) == (39206, 39206)
    assert (layout.is_implicit_vr, layout.is_little_endian, layout.is_deflated) == (
        False,
        True,
        False,
    )
    assert (layout.deepest_nesting, layout.pixel_data_is_encapsulated) == (1, False)


def test_pixel_data_is_not_read(ct_bytes: bytes) -> None:
    value = bytes(20_000_000)
    pixel_data = b"\xe0\x7f\x10\x00OW\0\0" + struct.pack("<I", len(value)) + value
    file = _CountingFile(ct_bytes[:_PIXEL_DATA_AT] + pixel_data)
    assert walk(file).pixel_data_length == len(value)
    assert file.bytes_read < 64 * 1024


def test_an_empty_file_is_told_apart() -> None:
    assert _rejection(io.BytesIO()).code == "EMPTY_FILE"


def test_a_text_is_no_dicom() -> None:
    assert _rejection(io.BytesIO(b"hello world" * 100)).code == "NOT_DICOM"


def test_a_truncated_file_says_what_is_missing(ct_bytes: bytes) -> None:
    error = _rejection(io.BytesIO(ct_bytes[:10_000]))
    assert error.code == "TRUNCATED"
    assert error.message == (
        "The file ends in the middle of element (7FE0,0010): 33 kB were announced, 4 kB are there."
    )


def test_one_missing_byte_is_told_exactly(ct_bytes: bytes) -> None:
    error = _rejection(io.BytesIO(ct_bytes[: 6300 + 32767]))
    assert "32,768 bytes were announced, 32,767 bytes are there" in error.message


def test_a_cut_within_an_elements_head_is_a_truncation(ct_bytes: bytes) -> None:
    error = _rejection(io.BytesIO(ct_bytes[:3000]))
    assert error.code == "TRUNCATED"
    assert error.message == "The file was cut off: it ends within the head of an element."


@pytest.mark.no_cover
def test_every_cut_up_to_the_end_of_the_pixel_data_is_told_as_one(ct_bytes: bytes) -> None:
    layout = walk(io.BytesIO(ct_bytes))
    assert layout.pixel_data_offset is not None
    codes = set()
    for end in range(layout.dataset_offset, layout.pixel_data_offset + 32768):
        try:
            walk(io.BytesIO(ct_bytes[:end]))
        except FileRejected as error:
            codes.add(error.code)
    assert codes == {"TRUNCATED"}


@pytest.mark.no_cover
def test_every_truncation_is_rejected_or_ends_between_elements(ct_bytes: bytes) -> None:
    accepted = []
    for end in range(132, 6300):
        try:
            accepted.append(walk(io.BytesIO(ct_bytes[:end])).end_offset == end)
        except FileRejected as error:
            assert error.code in {"TRUNCATED", "MALFORMED"}  # noqa: PT017 - one of many cuts
    assert accepted
    assert all(accepted)


@pytest.mark.parametrize("nested", [_nested, _nested_with_lengths])
def test_nesting_is_limited(ct_bytes: bytes, nested: Callable[[int], bytes]) -> None:
    assert walk(_spliced(ct_bytes, nested(24))).deepest_nesting == 24
    assert _rejection(_spliced(ct_bytes, nested(25))).code == "NESTED_TOO_DEEP"
    assert _rejection(_spliced(ct_bytes, nested(5_000))).code == "NESTED_TOO_DEEP"


@pytest.mark.parametrize("nested", [_nested, _nested_with_lengths])
def test_elements_that_are_kept_are_found_whole(
    ct_bytes: bytes, nested: Callable[[int], bytes]
) -> None:
    file = _spliced(ct_bytes, nested(3))
    kept = walk(file, keep={0x00080005, 0x00400275, 0x00281050, 0x7FE00010, 0x00990099}).kept
    whole = {element.tag: file.getvalue()[element.begin : element.end] for element in kept}
    assert [element.is_sequence for element in kept] == [False, True, False]
    assert whole.keys() == {0x00080005, 0x00400275, 0x7FE00010}
    assert whole[0x00080005] == b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100"
    assert whole[0x00400275] == nested(3)
    assert len(whole[0x7FE00010]) == 12 + 32768


def test_private_implicit_sequences_count_as_nesting() -> None:
    value = b""
    for _ in range(30):
        item = struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value
        value = struct.pack("<HHI", 0x0009, 0x1010, len(item)) + item
    file = io.BytesIO(struct.pack("<HHI", 8, 0x60, 2) + b"OT" + value)
    assert _rejection(file).code == "NESTED_TOO_DEEP"


@pytest.mark.parametrize("length", [0x7FFFFFF0, 0xFFFFFFFF, 50_000])
def test_a_meta_header_longer_than_the_file_is_rejected(ct_bytes: bytes, length: int) -> None:
    file = io.BytesIO(ct_bytes[:140] + struct.pack("<I", length) + ct_bytes[144:])
    assert _rejection(file).code == "TRUNCATED"


@pytest.mark.parametrize(
    "elements",
    [
        _SEQUENCE + b"\x08\x00\x50\x11UI\x06\x001.2.3\0" + _SEQUENCE_END,
        _SEQUENCE_END,
        _ITEM_END,
        b"\x40\x00\x60\xa1UT\0\0\xff\xff\xff\xff" + _ITEM + _ITEM_END + _SEQUENCE_END,
    ],
    ids=["element in a sequence", "stray end", "stray item end", "text without length"],
)
def test_structures_that_make_no_sense_are_rejected(ct_bytes: bytes, elements: bytes) -> None:
    assert _rejection(_spliced(ct_bytes, elements)).code == "MALFORMED"


@pytest.mark.parametrize("start", [132, 336], ids=["no preamble", "no meta header"])
def test_files_without_a_beginning_are_accepted(ct_bytes: bytes, start: int) -> None:
    layout = walk(io.BytesIO(ct_bytes[start:]))
    assert layout.transfer_syntax_uid == "1.2.840.10008.1.2.1"
    assert layout.pixel_data_length == 32768


def test_odd_lengths_are_accepted(ct_bytes: bytes) -> None:
    assert walk(_spliced(ct_bytes, b"\x40\x00\x54\x02LO\x03\x00abc")).pixel_data_offset == 6311


def test_what_follows_the_last_element_must_be_zero(ct_bytes: bytes) -> None:
    assert walk(io.BytesIO(ct_bytes + bytes(999))).end_offset == len(ct_bytes)
    assert _rejection(io.BytesIO(ct_bytes + b"abc")).code == "MALFORMED"


def test_the_number_of_elements_is_limited(ct_bytes: bytes) -> None:
    limits = WalkLimits(header_max_elements=100)
    assert _rejection(io.BytesIO(ct_bytes), limits).code == "TOO_MANY_ELEMENTS"


def test_a_deflated_bomb_is_rejected(ct_bytes: bytes) -> None:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    bomb = deflater.compress(bytes(64 * 1024 * 1024)) + deflater.flush()
    syntax = b"UI\x16\x001.2.840.10008.1.2.1.99"
    meta = ct_bytes[:336].replace(b"UI\x14\x001.2.840.10008.1.2.1\0", syntax)
    assert _rejection(io.BytesIO(meta + bomb)).code == "INFLATES_TOO_FAR"


def test_a_transfer_syntax_that_is_no_uid_is_rejected(ct_bytes: bytes) -> None:
    file = io.BytesIO(ct_bytes.replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2/1\0", 1))
    assert _rejection(file).code == "UNSUPPORTED_TRANSFER_SYNTAX"


@pytest.mark.parametrize("elements", [bytes(8), bytes(16) + b"\1\0\0\0\0\0\0\0"])
def test_zero_bytes_before_other_elements_are_searched_once(
    ct_bytes: bytes, elements: bytes
) -> None:
    content = _spliced(ct_bytes, elements * 2_000).getvalue()
    file = _CountingFile(content)
    with contextlib.suppress(FileRejected):
        walk(file)
    assert file.bytes_read < 3 * len(content)


def _sequence_of_empty_items(count: int) -> bytes:
    items = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * count
    return _SEQUENCE[:8] + struct.pack("<I", len(items)) + items


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        (_sequence_of_empty_items(11), "A sequence of this file has more than 10 items."),
        (_sequence_of_empty_items(9) * 3, "The header of this file has more than 25 items."),
    ],
    ids=["in one sequence", "in all"],
)
def test_the_number_of_items_is_limited(ct_bytes: bytes, elements: bytes, message: str) -> None:
    limits = WalkLimits(sequence_max_items=10, header_max_items=25)
    rejection = _rejection(_spliced(ct_bytes, elements), limits)
    assert (rejection.code, rejection.message) == ("TOO_MANY_ITEMS", message)


def test_items_up_to_the_limits_are_accepted(ct_bytes: bytes) -> None:
    limits = WalkLimits(sequence_max_items=10, header_max_items=23)  # the CT has three of its own
    layout = walk(_spliced(ct_bytes, _sequence_of_empty_items(10) * 2), limits)
    assert layout.element_count == walk(io.BytesIO(ct_bytes)).element_count + 22


@pytest.mark.parametrize("vr", [b"SH", b"XX"], ids=["plain", "not plain"])
@pytest.mark.parametrize("is_in_item", [False, True])
def test_the_number_of_elements_beside_each_other_is_limited(
    ct_bytes: bytes, vr: bytes, *, is_in_item: bool
) -> None:
    elements = b"".join(struct.pack("<HH2sH", 0x0041, tag, vr, 0) for tag in range(301))
    where = "The file"
    if is_in_item:
        elements = _SEQUENCE + _ITEM + elements + _ITEM_END + _SEQUENCE_END
        where = "An item of this file"
    rejection = _rejection(_spliced(ct_bytes, elements), WalkLimits(dataset_max_elements=300))
    message = f"{where} has more than 300 elements."
    assert (rejection.code, rejection.message) == ("TOO_MANY_ELEMENTS", message)


def test_a_file_of_many_empty_items_is_refused_before_it_is_read_whole(ct_bytes: bytes) -> None:
    file = _CountingFile(_spliced(ct_bytes, _sequence_of_empty_items(1_900_000)).getvalue())
    assert _rejection(file).code == "TOO_MANY_ITEMS"
    assert file.bytes_read < 1_000_000


def test_the_number_of_fragments_is_limited(ct_bytes: bytes) -> None:
    fragments = struct.pack("<HHI", 0xFFFE, 0xE000, 0) * 12 + _SEQUENCE_END
    pixel_data = b"\xe0\x7f\x10\x00OB\0\0\xff\xff\xff\xff" + fragments
    file = io.BytesIO(ct_bytes[:_PIXEL_DATA_AT] + pixel_data)
    assert walk(file, WalkLimits(max_fragments=12)).fragment_count == 11
    assert _rejection(file, WalkLimits(max_fragments=11)).code == "TOO_MANY_ITEMS"
