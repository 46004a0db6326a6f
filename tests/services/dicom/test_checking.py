import contextlib
import io
from collections.abc import Mapping
from pathlib import Path

import pydicom
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.data import get_testdata_file

from services.dicom.checking import check_file
from services.dicom.layout import WalkLimits
from services.errors import FileRejected
from tests.examples import examples


def test_every_file_that_is_good_is_accepted(good_files: list[Path]) -> None:
    rejected = {}
    for path in good_files:
        with path.open("rb") as file:
            try:
                check_file(file)
            except FileRejected as error:
                rejected[path.name] = error.message
    assert len(good_files) > 200
    assert rejected == {}


def test_every_bad_file_is_rejected_with_its_code(bad_files: Mapping[Path, str]) -> None:
    codes = {}
    for path in bad_files:
        with path.open("rb") as file, pytest.raises(FileRejected) as caught:
            check_file(file)
        codes[path] = caught.value.code
    assert codes == bad_files


def test_a_ct_is_told_in_full(ct_bytes: bytes) -> None:
    checked = check_file(io.BytesIO(ct_bytes))
    assert checked.number_of_frames == 1
    assert checked.not_renderable_reason is None
    assert checked.header.patient.patient_name == "CompressedSamples^CT1"
    assert checked.layout.pixel_data_offset == 6300
    assert checked.layout.pixel_data_length == 32768


@pytest.mark.parametrize(
    ("uid", "code"),
    [
        (b"1.2.a\0", "INVALID_UID"),
        (b"1/2.3\0", "INVALID_UID"),
        (b"1\n2.33", "INVALID_UID"),
        (b"1.2\\3\0", "INVALID_UID"),
        (b"\0\0\0\0\0\0", "MISSING_UID"),
        (b"      ", "MISSING_UID"),
    ],
)
def test_an_identifier_that_is_none_is_rejected(ct_bytes: bytes, uid: bytes, code: str) -> None:
    place = ct_bytes.index(b"\x20\x00\x0d\x00UI") + 6
    length = int.from_bytes(ct_bytes[place : place + 2], "little")
    damaged = ct_bytes[:place] + b"\x06\0" + uid + ct_bytes[place + 2 + length :]
    with pytest.raises(FileRejected) as caught:
        check_file(io.BytesIO(damaged))
    assert caught.value.code == code


@pytest.mark.no_cover
@settings(max_examples=examples(100), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_random_damage_is_rejected_or_accepted_but_never_an_error(
    good_files: list[Path], data: st.DataObject
) -> None:
    small = [path for path in good_files if path.stat().st_size < 40_000]
    damaged = bytearray(data.draw(st.sampled_from(small)).read_bytes())
    for _ in range(data.draw(st.integers(1, 12))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))]
    with contextlib.suppress(FileRejected):
        check_file(io.BytesIO(bytes(damaged)), limits=WalkLimits(header_max_elements=50_000))


@settings(max_examples=examples(100), deadline=None)
@given(content=st.binary(max_size=400))
def test_random_bytes_are_rejected(content: bytes) -> None:
    with pytest.raises(FileRejected):
        check_file(io.BytesIO(content))


@settings(max_examples=examples(100), deadline=None)
@given(content=st.binary(max_size=400))
def test_random_bytes_behind_a_header_are_rejected(content: bytes) -> None:
    with pytest.raises(FileRejected):
        check_file(io.BytesIO(bytes(128) + b"DICM" + content))


def test_frames_beyond_the_limit_are_not_counted(ct_bytes: bytes) -> None:
    checked = check_file(io.BytesIO(ct_bytes), limits=WalkLimits(frame_max_pixels=128 * 128 - 1))
    assert checked.number_of_frames == 0
    assert "larger than allowed" in (checked.not_renderable_reason or "")


@pytest.mark.parametrize(
    "keyword", ["RedPaletteColorLookupTableDescriptor", "BluePaletteColorLookupTableData"]
)
def test_a_palette_that_is_missing_is_known_at_the_check(keyword: str) -> None:
    path = str(get_testdata_file("examples_palette.dcm", download=False))
    dataset = pydicom.dcmread(path)
    assert check_file(io.BytesIO(Path(path).read_bytes())).number_of_frames == 1
    delattr(dataset, keyword)
    file = io.BytesIO()
    dataset.save_as(file)
    checked = check_file(file)
    assert (checked.number_of_frames, checked.not_renderable_reason) == (
        0,
        "Its palette is missing.",
    )


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"PhotometricInterpretation": None}, "Its PhotometricInterpretation is missing."),
        (
            {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"},
            "Its SamplesPerPixel is not that of its JPEG 2000 image.",
        ),
        ({"Rows": 65}, "Its Rows and Columns are not those of its JPEG 2000 image."),
        (
            {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7},
            "Its BitsAllocated is less than the bits of its JPEG 2000 image.",
        ),
    ],
)
def test_a_header_that_contradicts_its_jpeg_2000_is_known_at_the_check(
    changes: dict[str, object], reason: str
) -> None:
    dataset = pydicom.dcmread(str(get_testdata_file("JPEG2000.dcm", download=False)))
    for keyword, value in changes.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    file = io.BytesIO()
    dataset.save_as(file)
    checked = check_file(file)
    assert (checked.number_of_frames, checked.not_renderable_reason) == (0, reason)
    # The beginning of the file is enough.
    beginning = io.BytesIO(file.getvalue()[:20_000])
    assert check_file(beginning, file_size=len(file.getvalue())).not_renderable_reason == reason
