"""Pixel data that is not encoded as the transfer syntax says."""

import io

import pytest
from pydicom import dcmread, dcmwrite
from pydicom.data import get_testdata_file

from services.dicom.checking import check_file


@pytest.mark.parametrize(
    ("name", "syntax", "other", "reason"),
    [
        (
            "JPEG2000.dcm",
            b"1.2.840.10008.1.2.4.91",
            b"1.2.840.10008.1.2.1\0\0\0",
            "Its transfer syntax says uncompressed pixel data, and it is compressed.",
        ),
        (
            "CT_small.dcm",
            b"1.2.840.10008.1.2.1\0",
            b"1.2.840.10008.1.2.5\0",
            "Its transfer syntax says compressed pixel data, and it is uncompressed.",
        ),
    ],
)
def test_pixel_data_of_another_kind_than_the_transfer_syntax_is_not_shown(
    name: str, syntax: bytes, other: bytes, reason: str
) -> None:
    stream = io.BytesIO()
    dcmwrite(stream, dcmread(str(get_testdata_file(name, download=False))))
    assert syntax in stream.getvalue()
    checked = check_file(io.BytesIO(stream.getvalue().replace(syntax, other, 1)))
    assert (checked.number_of_frames, checked.not_renderable_reason) == (0, reason)
