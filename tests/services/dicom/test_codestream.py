import io

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame

from services.dicom.checking import check_file
from services.dicom.codestream import Codestream, CodestreamKind, read_codestream

JPEG, JPEG_LS, JPEG_2000 = CodestreamKind.JPEG, CodestreamKind.JPEG_LS, CodestreamKind.JPEG_2000


def first_frame(name: str) -> bytes:
    dataset = dcmread(str(get_testdata_file(name, download=False)))
    return get_frame(dataset.PixelData, 0, number_of_frames=int(dataset.get("NumberOfFrames", 1)))


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "MR_small_jp2klossless.dcm"])
def test_the_size_is_that_of_the_attributes(name: str) -> None:
    dataset = dcmread(str(get_testdata_file(name, download=False)))
    assert read_codestream(first_frame(name), JPEG_2000) == Codestream(
        JPEG_2000, dataset.Rows, dataset.Columns, 1, precision=16, is_signed=True
    )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("SC_rgb_jpeg_dcmtk.dcm", Codestream(JPEG, 100, 100, 3, 8, is_rgb=False)),
        ("SC_rgb_dcmtk_+eb+cr.dcm", Codestream(JPEG, 100, 100, 3, 8, is_rgb=True)),
        ("SC_rgb_jpeg_app14_dcmd.dcm", Codestream(JPEG, 256, 256, 3, 8, is_rgb=True)),
        ("SC_rgb_jpeg_gdcm.dcm", Codestream(JPEG, 100, 100, 3, 8, is_rgb=True)),
        ("JPEG-lossy.dcm", Codestream(JPEG, 1024, 256, 1, 12)),
        ("JPEG-LL.dcm", Codestream(JPEG, 1024, 256, 1, 16)),
    ],
)
def test_a_jpeg_says_its_size_bits_and_colours(name: str, expected: Codestream) -> None:
    assert read_codestream(first_frame(name), JPEG) == expected


def test_a_jpeg_ls_says_its_size_and_bits() -> None:
    frame = first_frame("emri_small_jpeg_ls_lossless.dcm")
    assert read_codestream(frame, JPEG_LS) == Codestream(JPEG_LS, 64, 64, 1, 16)
    assert read_codestream(frame, JPEG) is None


def test_jpeg_2000_says_whether_its_colours_are_transformed() -> None:
    codestream = read_codestream(first_frame("US1_J2KR.dcm"), JPEG_2000)
    assert codestream == Codestream(JPEG_2000, 480, 640, 3, 8, has_colour_transform=True)


@pytest.mark.parametrize("kind", [JPEG, JPEG_LS, JPEG_2000])
@pytest.mark.parametrize("name", ["JPEG-LL.dcm", "emri_small_jpeg_ls_lossless.dcm", "JPEG2000.dcm"])
def test_damaged_heads_are_never_an_error(name: str, kind: CodestreamKind) -> None:
    frame = first_frame(name)
    for length in range(200):
        read_codestream(frame[:length], kind)
        read_codestream(frame[:length] + b"\xff" * 400, kind)


def test_a_codestream_in_boxes_is_found() -> None:
    bare = first_frame("JPEG2000.dcm")
    boxed = b"\x00\x00\x00\x0cjP  \r\n\x87\n".ljust(80, b"\0") + bare
    assert read_codestream(boxed, JPEG_2000) == read_codestream(bare, JPEG_2000) is not None


@pytest.mark.parametrize("frame", [b"", b"\xff\xd8\xff\xe0", bytes(100)])
def test_other_frames_have_no_size(frame: bytes) -> None:
    assert read_codestream(frame, JPEG_2000) is None


@pytest.mark.parametrize(("keyword", "value"), [("Rows", 12), ("Columns", 65)])
def test_attributes_of_another_size_are_not_rendered(keyword: str, value: int) -> None:
    dataset = dcmread(str(get_testdata_file("JPEG2000.dcm", download=False)))
    setattr(dataset, keyword, value)
    written = io.BytesIO()
    dataset.save_as(written)
    checked = check_file(written)
    assert (checked.number_of_frames, checked.not_renderable_reason) == (
        0,
        "Its Rows and Columns are not those of its JPEG 2000 image.",
    )


def test_a_codestream_that_was_cut_off_has_no_size() -> None:
    assert read_codestream(first_frame("JPEG2000.dcm")[:20], JPEG_2000) is None
