"""Which pixels can be shown, and in a sentence why others can't."""

from services.dicom.codestream import (
    CODESTREAM_KINDS,
    DEFLATED_FRAMES,
    RLE_LOSSLESS,
    Codestream,
    CodestreamKind,
)
from services.dicom.display import (
    NATIVE_SYNTAXES,
    PALETTE_COLOR,
    YBR_FULL_422,
    PixelDescription,
    ValueType,
)

_VIDEO = (
    (range(100, 102), "MPEG-2"),
    (range(102, 107), "MPEG-4 (H.264)"),
    (range(107, 109), "HEVC (H.265)"),
)
"""Last numbers of the transfer syntaxes 1.2.840.10008.1.2.4 that hold videos (PS3.5 A.4)."""

_SAMPLES = {
    "MONOCHROME1": 1,
    "MONOCHROME2": 1,
    PALETTE_COLOR: 1,
    "RGB": 3,
    "YBR_FULL": 3,
    YBR_FULL_422: 3,
    "YBR_ICT": 3,
    "YBR_RCT": 3,
    "XYB": 3,
}
"""SamplesPerPixel by the PhotometricInterpretation that can be shown (PS3.3 C.7.6.3.1.2)."""

_RGB_AFTER_DECODING = frozenset({"YBR_ICT", "YBR_RCT", "XYB"})
"""Colours that only a codestream can hold."""

_WITHOUT_COLOUR_TRANSFORM = NATIVE_SYNTAXES | {RLE_LOSSLESS, DEFLATED_FRAMES}

_BITS_ALLOCATED = frozenset({1, 8, 16, 24, 32, 64})
_CODESTREAM_BITS_ALLOCATED = {
    # One bit: masks of segmentations.
    CodestreamKind.RLE: frozenset({1, 8, 16, 32, 64}),
    CodestreamKind.JPEG_2000: frozenset({1, 8, 16, 32}),
    CodestreamKind.DEFLATED: _BITS_ALLOCATED,
}
_OTHER_BITS_ALLOCATED = frozenset({8, 16, 32})
_WITHOUT_HEADER = frozenset({CodestreamKind.RLE, CodestreamKind.JPEG_XL, CodestreamKind.DEFLATED})
_SHOWN_CHARACTERS = 16
"""Of a value in a sentence: as many as CS has (PS3.5 6.2)."""


def format_fault(description: PixelDescription) -> str | None:
    """Return in a sentence why pixels of this format can't be shown, None when they can.

    Args:
        description: Of the instance; its rows, columns and palette are not looked at.
    """
    return (
        _syntax_fault(description.transfer_syntax_uid)
        or _colour_fault(description)
        or _bits_fault(description)
    )


def codestream_fault(
    codestream: Codestream | None, kind: CodestreamKind, description: PixelDescription
) -> str | None:
    """Return in a sentence why a codestream must not be decoded, None when nothing is wrong.

    A decoder that trusts the header of the instance reads and writes out of its bounds where the
    codestream has another size.

    Args:
        codestream: Of one frame; None when it can't be read.
        kind: What the transfer syntax calls for.
        description: Of the instance.
    """
    if kind in _WITHOUT_HEADER:
        return None
    if codestream is None:
        return f"Its pixel data is no {kind} image."
    if (codestream.rows, codestream.columns) != (description.rows, description.columns):
        return f"Its Rows and Columns are not those of its {kind} image."
    if codestream.components != description.samples_per_pixel:
        return f"Its SamplesPerPixel is not that of its {kind} image."
    if codestream.precision > description.bits_allocated:
        return f"Its BitsAllocated is less than the bits of its {kind} image."
    return None


def _syntax_fault(uid: str) -> str | None:
    if uid in NATIVE_SYNTAXES or uid in CODESTREAM_KINDS:
        return None
    start, _, last = uid.rpartition(".")
    if start == "1.2.840.10008.1.2.4" and last.isdecimal():
        for numbers, name in _VIDEO:
            if int(last) in numbers:
                return f"Its frames are a video ({name}), which is not shown as pictures."
    if not uid:
        return "Its transfer syntax is missing."
    return "Its transfer syntax is not supported."


def _colour_fault(description: PixelDescription) -> str | None:
    photometric = description.photometric_interpretation
    if description.value_type is not ValueType.INTEGER:
        # PS3.3 C.7.6.24: MONOCHROME2 alone is allowed.
        return (
            None if description.samples_per_pixel == 1 else "Its float pixels are no grey values."
        )
    if not photometric:
        return "Its PhotometricInterpretation is missing."
    samples = _SAMPLES.get(photometric)
    is_native = description.transfer_syntax_uid in _WITHOUT_COLOUR_TRANSFORM
    if samples is None or (is_native and photometric in _RGB_AFTER_DECODING):
        shown = photometric[:_SHOWN_CHARACTERS]
        return f"Its PhotometricInterpretation {shown} is not supported."
    if samples != description.samples_per_pixel:
        return (
            f"Its SamplesPerPixel is {description.samples_per_pixel}, which contradicts its "
            "PhotometricInterpretation."
        )
    if photometric == YBR_FULL_422 and is_native and description.columns % 2:
        return "Its Columns are odd, which YBR_FULL_422 does not allow."
    return None


def _bits_fault(description: PixelDescription) -> str | None:
    if description.value_type is not ValueType.INTEGER:
        return None
    allocated = description.bits_allocated
    if not allocated:
        return "Its BitsAllocated is missing."
    kind = CODESTREAM_KINDS.get(description.transfer_syntax_uid)
    allowed = _BITS_ALLOCATED
    if kind is not None:
        allowed = _CODESTREAM_BITS_ALLOCATED.get(kind, _OTHER_BITS_ALLOCATED)
    if allocated not in allowed or (allocated == 1 and description.samples_per_pixel > 1):
        return f"Its BitsAllocated of {allocated} is not supported."
    if not 0 < description.bits_stored <= allocated:
        return "Its BitsStored does not fit its BitsAllocated."
    return None
