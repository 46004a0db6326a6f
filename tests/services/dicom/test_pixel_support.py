from dataclasses import replace
from typing import Any

import pytest

from services.dicom.display import PixelDescription, ValueType
from services.dicom.pixel_support import format_fault

NATIVE = "1.2.840.10008.1.2.1"
JPEG = "1.2.840.10008.1.2.4.50"
RLE = "1.2.840.10008.1.2.5"
JPEG_2000 = "1.2.840.10008.1.2.4.90"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
ONE_BIT = {"bits_allocated": 1, "bits_stored": 1, "high_bit": 0}
GREY = PixelDescription(transfer_syntax_uid=NATIVE, rows=2, columns=3)
COLOUR = replace(
    GREY,
    samples_per_pixel=3,
    bits_allocated=8,
    bits_stored=8,
    high_bit=7,
    photometric_interpretation="RGB",
)


@pytest.mark.parametrize(
    ("description", "changes", "fault"),
    [
        (GREY, {}, None),
        (GREY, {"transfer_syntax_uid": "1.2.840.10008.1.2.1.99"}, None),
        (GREY, {"transfer_syntax_uid": "1.2.840.10008.1.2.4.201"}, None),
        (GREY, {"bits_allocated": 32, "value_type": ValueType.FLOAT}, None),
        (GREY, {"bits_allocated": 1, "bits_stored": 1, "high_bit": 0}, None),
        (GREY, {"transfer_syntax_uid": RLE, **ONE_BIT}, None),
        (GREY, {"transfer_syntax_uid": JPEG_2000, **ONE_BIT}, None),
        (GREY, {"transfer_syntax_uid": DEFLATED_FRAMES, **ONE_BIT}, None),
        (GREY, {"transfer_syntax_uid": DEFLATED_FRAMES}, None),
        (
            GREY,
            {"transfer_syntax_uid": JPEG, **ONE_BIT},
            "Its BitsAllocated of 1 is not supported.",
        ),
        (
            COLOUR,
            {"transfer_syntax_uid": RLE, **ONE_BIT},
            "Its BitsAllocated of 1 is not supported.",
        ),
        (COLOUR, {}, None),
        (COLOUR, {"transfer_syntax_uid": JPEG, "photometric_interpretation": "YBR_FULL_422"}, None),
        (GREY, {"transfer_syntax_uid": ""}, "Its transfer syntax is missing."),
        (GREY, {"transfer_syntax_uid": "1.2.3"}, "Its transfer syntax is not supported."),
        (
            GREY,
            {"transfer_syntax_uid": "1.2.840.10008.1.2.4.100"},
            "Its frames are a video (MPEG-2), which is not shown as pictures.",
        ),
        (
            GREY,
            {"transfer_syntax_uid": "1.2.840.10008.1.2.4.103"},
            "Its frames are a video (MPEG-4 (H.264)), which is not shown as pictures.",
        ),
        (
            GREY,
            {"transfer_syntax_uid": "1.2.840.10008.1.2.4.108"},
            "Its frames are a video (HEVC (H.265)), which is not shown as pictures.",
        ),
        (
            GREY,
            {"photometric_interpretation": ""},
            "Its PhotometricInterpretation is missing.",
        ),
        (
            COLOUR,
            {"photometric_interpretation": "YBR_RCT"},
            "Its PhotometricInterpretation YBR_RCT is not supported.",
        ),
        (
            COLOUR,
            {"photometric_interpretation": "HSV"},
            "Its PhotometricInterpretation HSV is not supported.",
        ),
        (
            COLOUR,
            {"photometric_interpretation": "MONOCHROME2"},
            "Its SamplesPerPixel is 3, which contradicts its PhotometricInterpretation.",
        ),
        (
            COLOUR,
            {"photometric_interpretation": "YBR_FULL_422"},
            "Its Columns are odd, which YBR_FULL_422 does not allow.",
        ),
        (
            COLOUR,
            {"bits_allocated": 32, "value_type": ValueType.FLOAT},
            "Its float pixels are no grey values.",
        ),
        (GREY, {"bits_allocated": 0}, "Its BitsAllocated is missing."),
        (GREY, {"bits_allocated": 12}, "Its BitsAllocated of 12 is not supported."),
        (
            GREY,
            {"transfer_syntax_uid": RLE, "bits_allocated": 24},
            "Its BitsAllocated of 24 is not supported.",
        ),
        (GREY, {"bits_stored": 17}, "Its BitsStored does not fit its BitsAllocated."),
        (GREY, {"bits_stored": 0}, "Its BitsStored does not fit its BitsAllocated."),
    ],
)
def test_what_cannot_be_shown_says_why(
    description: PixelDescription, changes: dict[str, Any], fault: str | None
) -> None:
    assert format_fault(replace(description, **changes)) == fault
