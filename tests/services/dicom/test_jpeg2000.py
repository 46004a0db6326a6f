import io

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.encaps import get_frame

from services.dicom.checking import check_file
from services.dicom.frame_count import CodestreamSize, read_size


def first_frame(name: str) -> bytes:
    return get_frame(dcmread(str(get_testdata_file(name, download=False))).PixelData, 0)


@pytest.mark.parametrize("name", ["JPEG2000.dcm", "MR_small_jp2klossless.dcm"])
def test_the_size_is_that_of_the_attributes(name: str) -> None:
    dataset = dcmread(str(get_testdata_file(name, download=False)))
    frame = first_frame(name)
    assert read_size(frame) == CodestreamSize(
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel
    )


def test_a_codestream_in_boxes_is_found() -> None:
    bare = first_frame("JPEG2000.dcm")
    boxed = b"\x00\x00\x00\x0cjP  \r\n\x87\n".ljust(80, b"\0") + bare
    assert read_size(boxed) == read_size(bare)


@pytest.mark.parametrize("frame", [b"", b"\xff\xd8\xff\xe0", bytes(100)])
def test_other_frames_have_no_size(frame: bytes) -> None:
    assert read_size(frame) is None


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
    assert read_size(first_frame("JPEG2000.dcm")[:20]) is None
