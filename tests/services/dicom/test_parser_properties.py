"""Whatever the bytes are: the walk and its readers refuse them or read them, in linear time."""

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.dicom.byte_window import _WINDOW_BYTES
from services.dicom.checking import check_file
from services.dicom.elements import Elements, kept_elements
from services.dicom.json_model import KnownElements, header_json
from services.dicom.layout import WalkLimits
from services.dicom.parser import walk
from services.errors import FileRejected
from tests.examples import examples

_LIMITS = WalkLimits(sequence_max_depth=8, header_max_elements=20_000, max_fragments=20_000)
_SMALL_BYTES = 40_000
_ALL_TAGS = range(1 << 32)
_KNOWN = KnownElements()

pytestmark = pytest.mark.no_cover


class CountedFile(io.BytesIO):
    """Counts what is read."""

    reads = 0
    bytes_read = 0
    longest = 0

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.reads += 1
        self.bytes_read += len(content)
        self.longest = max(self.longest, len(content))
        return content


def _walked(content: bytes, *, file_size: int | None = None) -> tuple[CountedFile, bool]:
    """Walk over a file; returns what was read, and whether the file was accepted."""
    file = CountedFile(content)
    try:
        walk(file, _LIMITS, keep=_ALL_TAGS, file_size=file_size)
    except FileRejected:
        return file, False
    return file, True


def _read_all(elements: Elements) -> None:
    """Read every value in every way."""
    for element in elements:
        tag = element.tag
        assert elements.length(tag) >= 0
        assert len(elements.vr(tag)) == 2
        elements.value(tag)
        elements.text(tag)
        elements.numbers(tag)
        for item in elements.items(tag):
            _read_all(item)


def _check(content: bytes) -> None:
    """Check a file of any content, whole and as a beginning."""
    # Items are looked at once before their sequence is entered, on each of 8 levels at most.
    most_reads = 32 + 10 * (len(content) // 8)
    file, is_accepted = _walked(content)
    assert file.reads <= most_reads
    # The bytes at the end of the file are searched once for zeros.
    assert file.bytes_read <= len(content) + file.reads * _WINDOW_BYTES
    assert file.longest <= 2**16
    _walked(content, file_size=len(content) + 1_000_000)
    with suppress(FileRejected):
        check_file(io.BytesIO(content), limits=_LIMITS)
    with suppress(FileRejected):
        model = header_json(io.BytesIO(content), limits=_LIMITS)
        # Models that files share depend on nothing but what makes them equal.
        assert header_json(io.BytesIO(content), limits=_LIMITS, known=_KNOWN) == model
    if is_accepted:
        layout = walk(io.BytesIO(content), _LIMITS, keep=_ALL_TAGS)
        if not layout.is_deflated:
            _read_all(kept_elements(io.BytesIO(content), layout))


_TAGS = st.sampled_from(
    [
        0x00080005, 0x00080008, 0x00080018, 0x00100010, 0x00189346, 0x00280008, 0x00280010,
        0x00280103, 0x00283002, 0x00283006, 0x00290010, 0x00291010, 0x00291011, 0x7FE00010,
    ]
)  # fmt: skip
_SEQUENCES = st.sampled_from([0x00081140, 0x00283000, 0x00291012, 0x52009229, 0x52009230])
_SHORT_VRS = st.sampled_from([b"LO", b"US", b"SS", b"FD", b"AT", b"PN", b"UL", b"CS", b"DS"])
_LONG_VRS = st.sampled_from([b"UN", b"OB", b"OW", b"UT"])
_UNDEFINED = 0xFFFFFFFF
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_SYNTAXES = {
    b"1.2.840.10008.1.2\0": ("<", True),
    b"1.2.840.10008.1.2.1\0": ("<", False),
    b"1.2.840.10008.1.2.2\0": (">", False),
    b"1.2.840.10008.1.2.4.50": ("<", False),
    b"1.2.840.10008.1.2.1.99": ("<", False),
}
"""Byte order and implicit VR by transfer syntax."""


def _head(order: str, tag: int, vr: bytes, length: int) -> bytes:
    """Make the head of an element, of an item when there is no VR."""
    head = struct.pack(f"{order}HH", tag >> 16, tag & 0xFFFF)
    if not vr:
        return head + struct.pack(f"{order}I", length)
    if vr in (b"UN", b"OB", b"OW", b"UT", b"SQ"):
        return head + vr + b"\0\0" + struct.pack(f"{order}I", length)
    return head + vr + struct.pack(f"{order}H", length)


@st.composite
def _datasets(draw: st.DrawFn, order: str, depth: int, *, is_implicit: bool) -> bytes:
    """Make elements, with sequences of every kind, which need not make any sense."""
    content = b""
    for _ in range(draw(st.integers(0, 4))):
        if depth and draw(st.booleans()):
            content += draw(_sequences(order, depth, is_implicit=is_implicit))
            continue
        value = draw(st.binary(max_size=12))
        vr = b"" if is_implicit else draw(_SHORT_VRS | _LONG_VRS)
        content += _head(order, draw(_TAGS), vr, len(value)) + value
    return content


@st.composite
def _sequences(draw: st.DrawFn, order: str, depth: int, *, is_implicit: bool) -> bytes:
    vr = b"" if is_implicit else draw(st.sampled_from([b"SQ", b"SQ", b"UN"]))
    items = b""
    for _ in range(draw(st.integers(0, 3))):
        item = draw(_datasets(order, depth - 1, is_implicit=is_implicit or vr == b"UN"))
        if draw(st.booleans()):
            items += _head(order, _ITEM, b"", len(item)) + item
        else:
            items += _head(order, _ITEM, b"", _UNDEFINED) + item + _head(order, _ITEM_END, b"", 0)
    if draw(st.booleans()):
        return _head(order, draw(_SEQUENCES), vr, len(items)) + items
    end = _head(order, _SEQUENCE_END, b"", 0)
    return _head(order, draw(_SEQUENCES), vr, _UNDEFINED) + items + end


@st.composite
def _fragment_lists(draw: st.DrawFn, order: str) -> bytes:
    fragments = draw(st.lists(st.binary(max_size=12), max_size=4))
    items = b"".join(_head(order, _ITEM, b"", len(one)) + one for one in fragments)
    head = _head(order, 0x7FE00010, b"OB", _UNDEFINED)
    return head + items + _head(order, _SEQUENCE_END, b"", 0)


@st.composite
def _files(draw: st.DrawFn) -> bytes:
    """Make a file of any transfer syntax, sometimes damaged."""
    uid, (order, is_implicit) = draw(st.sampled_from(list(_SYNTAXES.items())))
    content = draw(_datasets(order, 3, is_implicit=is_implicit))
    if not is_implicit and draw(st.booleans()):
        content += draw(_fragment_lists(order))
    if draw(st.booleans()):
        content += bytes(draw(st.integers(0, 20)))
    if uid == b"1.2.840.10008.1.2.1.99" and draw(st.booleans()):
        content = zlib.compress(content, wbits=-zlib.MAX_WBITS)
    if draw(st.booleans()):
        content = draw(_damaged(content))
    meta = bytes(128) + b"DICM" + b"\2\0\x10\0UI" + struct.pack("<H", len(uid)) + uid
    return draw(st.sampled_from([meta, meta, meta, b""])) + content


_DAMAGE = st.binary(max_size=4) | st.builds(
    _head,
    st.sampled_from("<>"),
    _TAGS | _SEQUENCES | st.sampled_from([_ITEM, _ITEM_END, _SEQUENCE_END]),
    st.sampled_from([b"", b"SQ", b"UN", b"OB", b"US", b"XX"]),
    st.integers(0, 40),
)


@st.composite
def _damaged(draw: st.DrawFn, content: bytes) -> bytes:
    damaged = bytearray(content)
    for _ in range(draw(st.integers(1, 8))):
        at = draw(st.integers(0, min(len(damaged), 4_000)))
        damage = draw(_DAMAGE)
        end = at + draw(st.sampled_from([0, len(damage), 2 * len(damage)]))
        damaged[at:end] = damage
    return bytes(damaged)


@settings(max_examples=examples(300), deadline=None)
@given(_files())
def test_any_structure_is_read_or_refused(content: bytes) -> None:
    _check(content)


@settings(max_examples=examples(200), deadline=None)
@given(st.binary(max_size=2_000))
def test_any_bytes_are_read_or_refused(content: bytes) -> None:
    _check(content)
    _check(bytes(128) + b"DICM" + content)
    _check(b"\x08\0\x05\0" + content)


@pytest.fixture(scope="session")
def small_files(good_files: list[Path]) -> list[bytes]:
    return [path.read_bytes() for path in good_files if path.stat().st_size < _SMALL_BYTES]


@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_files_are_read_or_refused(small_files: list[bytes], data: st.DataObject) -> None:
    _check(data.draw(_damaged(data.draw(st.sampled_from(small_files)))))


def _implicit(tag: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag >> 16, tag & 0xFFFF, len(value)) + value


def _private_sequences(count: int) -> bytes:
    """Make private sequences in sequences of implicit VR, whose items are counted before."""
    value = _implicit(0xFFFEE000, b"") * count
    for _ in range(_LIMITS.sequence_max_depth - 1):
        value = _implicit(0xFFFEE000, _implicit(0x00291010, value))
    return _implicit(0x00080008, b"") + _implicit(0x00291010, value)


def _empty_elements(count: int) -> bytes:
    return b"".join(_implicit(0x00080008, b"") for _ in range(count))


def _far_elements(count: int) -> bytes:
    return b"".join(_implicit(0x00080008, bytes(_WINDOW_BYTES)) for _ in range(count))


def _fragments(count: int) -> bytes:
    pixels = b"\xe0\x7f\x10\0OB\0\0\xff\xff\xff\xff"
    items = _implicit(0xFFFEE000, b"") * (count + 1)
    return b"\x08\0\x08\0CS\0\0" + pixels + items + _implicit(0xFFFEE0DD, b"")


def _zeros(count: int) -> bytes:
    return _implicit(0x00080008, b"") + bytes(8 * count)


def _nearly_zeros(count: int) -> bytes:
    """Make zeros that end with something else: each pair of words could be an element."""
    return _zeros(count) + b"\1"


@pytest.mark.parametrize(
    "make",
    [_private_sequences, _empty_elements, _far_elements, _fragments, _zeros, _nearly_zeros],
)
def test_twice_the_elements_take_twice_the_reads(make: Callable[[int], bytes]) -> None:
    once, twice = (_walked(make(count))[0] for count in (400, 800))
    assert twice.reads <= 2 * once.reads + 8
    assert twice.bytes_read <= 2.2 * once.bytes_read + 8 * _WINDOW_BYTES
