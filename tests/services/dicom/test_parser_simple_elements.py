"""The short ways over plain elements find what the long ones find, and refuse it in their words."""

import io
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.valuerep import EXPLICIT_VR_LENGTH_16, EXPLICIT_VR_LENGTH_32

from services.dicom import byte_window, element_walk
from services.dicom.checking import CheckedFile, check_file
from services.dicom.element_bytes import LONG_VRS, SHORT_VRS
from services.dicom.element_walk import SimpleElements
from services.dicom.layout import WalkLimits
from services.dicom.parser import walk
from services.dicom.reading import HEADER_TAGS
from services.errors import FileRejected
from tests.examples import examples

_PIXEL_DATA_AT = 6288
_SMALL_BYTES = 40_000
_VRS = [b"SQ", b"OB", b"UN", b"UT", b"US", b"XX"]
_LENGTHS = [b"\0\0", b"\0\0\0\0", b"\xff\xff", b"\xff\xff\xff\xff"]
_TAGS = [b"\xfe\xff\x00\xe0", b"\xfe\xff\x0d\xe0", b"\xfe\xff\xdd\xe0", b"\xe0\x7f\x10\x00"]
"""An item, both delimiters and pixel data."""
_DAMAGE = st.binary(min_size=1, max_size=2) | st.sampled_from(_VRS + _LENGTHS + _TAGS)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom's, on the long way only


def _outcome(content: bytes, limits: WalkLimits) -> CheckedFile | tuple[str, str]:
    try:
        return check_file(io.BytesIO(content), limits=limits)
    except FileRejected as error:
        return error.code, error.message


def _long_way(content: bytes, limits: WalkLimits) -> CheckedFile | tuple[str, str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(element_walk, "SIMPLE_VRS", frozenset())
        return _outcome(content, limits)


def _heads(content: bytes) -> list[int]:
    kept = walk(io.BytesIO(content), keep=HEADER_TAGS).kept
    return [element.begin for element in kept]


@pytest.fixture(scope="session")
def small_files(good_files: list[Path]) -> list[tuple[bytes, list[int]]]:
    contents = [path.read_bytes() for path in good_files if path.stat().st_size < _SMALL_BYTES]
    return [(content, _heads(content)) for content in contents]


def test_the_vrs_are_those_of_pydicom() -> None:
    assert {vr.decode() for vr in SHORT_VRS} == EXPLICIT_VR_LENGTH_16
    assert {vr.decode() for vr in LONG_VRS} == EXPLICIT_VR_LENGTH_32


def test_good_files_are_read_the_same(good_files: list[Path]) -> None:
    limits = WalkLimits()
    for path in good_files:
        content = path.read_bytes()
        assert _outcome(content, limits) == _long_way(content, limits), path.name


@pytest.mark.no_cover
@settings(max_examples=examples(200), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_damaged_files_are_read_or_refused_the_same(
    small_files: list[tuple[bytes, list[int]]], data: st.DataObject
) -> None:
    content, heads = data.draw(st.sampled_from(small_files))
    damaged = bytearray(content)
    places = st.builds(int.__add__, st.sampled_from(heads), st.integers(0, 12))
    for _ in range(data.draw(st.integers(1, 6))):
        at = data.draw(places | st.integers(0, len(content) - 1))
        damage = data.draw(_DAMAGE)
        damaged[at : at + len(damage)] = damage
    content = bytes(damaged[: data.draw(st.just(len(damaged)) | st.integers(0, len(damaged)))])
    limits = WalkLimits(header_max_elements=data.draw(st.just(50_000) | st.integers(0, 300)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(byte_window, "_WINDOW_BYTES", data.draw(st.sampled_from([8, 100, 16_384])))
        assert _outcome(content, limits) == _long_way(content, limits)


def test_plain_elements_count_up_to_the_limit(ct_bytes: bytes) -> None:
    file = io.BytesIO(ct_bytes[:_PIXEL_DATA_AT])
    count = walk(file).element_count
    assert walk(file, WalkLimits(header_max_elements=count)).element_count == count
    with pytest.raises(FileRejected) as caught:
        walk(file, WalkLimits(header_max_elements=count - 1))
    assert caught.value.code == "TOO_MANY_ELEMENTS"


def test_a_length_that_looks_like_a_vr_is_a_length() -> None:
    length = int.from_bytes(b"US\0\0", "little")
    modality = struct.pack("<HHI", 0x0008, 0x0060, 2) + b"OT"
    private = struct.pack("<HHI", 0x0009, 0x1010, length) + bytes(length)
    layout = walk(io.BytesIO(modality + private))
    assert (layout.is_implicit_vr, layout.element_count) == (True, 2)
    assert layout.end_offset == len(modality + private)


def test_an_undefined_length_is_not_plain_in_the_largest_file() -> None:
    element = b"\x41\x00\x01\x10UN\0\0\xff\xff\xff\xff"
    plain = SimpleElements(is_little_endian=True)
    assert plain.run(element, 0, reach=2**40, most=9, keep={0x00411001}) == (0, 0, [])
