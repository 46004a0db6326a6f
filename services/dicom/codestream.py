"""What a compressed frame says of itself, read from its first bytes without decoding it."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum


class CodestreamKind(StrEnum):
    """Families of codestreams in DICOM (PS3.5 A.4)."""

    JPEG = "JPEG"
    JPEG_LS = "JPEG-LS"
    JPEG_2000 = "JPEG 2000"
    RLE = "RLE"
    JPEG_XL = "JPEG XL"
    DEFLATED = "deflated"


_PREFIX = "1.2.840.10008.1.2.4."
RLE_LOSSLESS = "1.2.840.10008.1.2.5"
DEFLATED_FRAMES = "1.2.840.10008.1.2.8.1"
"""Deflated Image Frame Compression: each frame is a native one, deflated (PS3.5 A.4.13)."""

CODESTREAM_KINDS = {
    **dict.fromkeys(
        (f"{_PREFIX}{number}" for number in (50, 51, 53, 55, 57, 70)), CodestreamKind.JPEG
    ),
    **dict.fromkeys((f"{_PREFIX}{number}" for number in (80, 81)), CodestreamKind.JPEG_LS),
    **dict.fromkeys(
        (f"{_PREFIX}{number}" for number in (90, 91, 92, 93, 201, 202, 203)),
        CodestreamKind.JPEG_2000,
    ),
    **dict.fromkeys((f"{_PREFIX}{number}" for number in (110, 111, 112)), CodestreamKind.JPEG_XL),
    RLE_LOSSLESS: CodestreamKind.RLE,
    DEFLATED_FRAMES: CodestreamKind.DEFLATED,
}
"""Kinds by transfer syntax UID: those that are decoded. 53 and 55 are retired progressive JPEG."""

CODESTREAM_HEAD_BYTES = 128 * 1024
"""So much of a frame holds its header: application data before it may take 64 KiB a segment."""


@dataclass(frozen=True, slots=True)
class Codestream:
    """The header of a codestream.

    Attributes:
        rows: In pixels.
        columns: In pixels.
        components: Samples of a pixel.
        precision: Bits of a sample, 0 where the codestream does not say it.
        is_signed: JPEG 2000 alone says it.
        is_rgb: Of three components in JPEG: True for RGB, False for YCbCr, None where the
            codestream does not say it.
        has_colour_transform: JPEG 2000: the decoder undoes a transformation of three components.
    """

    kind: CodestreamKind
    rows: int
    columns: int
    components: int
    precision: int = 0
    is_signed: bool = False
    is_rgb: bool | None = None
    has_colour_transform: bool = False


def read_codestream(frame: bytes, kind: CodestreamKind) -> Codestream | None:
    """Read what a frame says of itself.

    Args:
        frame: The frame, or its first `CODESTREAM_HEAD_BYTES`.
        kind: What the transfer syntax calls for.

    Returns:
        None when the frame is no codestream of that kind, or does not say it in its first bytes:
        RLE, JPEG XL and deflated frames have no header that does.
    """
    try:
        if kind is CodestreamKind.JPEG_2000:
            return _read_jpeg2000(frame)
        if kind in {CodestreamKind.JPEG, CodestreamKind.JPEG_LS}:
            return _read_jpeg(frame, kind)
    except (IndexError, ValueError, struct.error):
        return None
    return None


_SIZ = struct.Struct(">4xHHIIIIIIIIH")
"""SOC and SIZ markers, then Lsiz, Rsiz, Xsiz, Ysiz, XOsiz, YOsiz, tile sizes and offsets, Csiz
(ISO/IEC 15444-1 A.5.1)."""
_SOC_SIZ = b"\xff\x4f\xff\x51"
_COD = 0x52
_SOT = 0x90
_BOXES_MAX_BYTES = 4096
"""Room for the boxes of a JP2 file before the codestream: against PS3.5 8.2.4, and seen."""


def _read_jpeg2000(frame: bytes) -> Codestream | None:
    start = frame.find(_SOC_SIZ, 0, _BOXES_MAX_BYTES)
    if start < 0:
        return None
    length, _, right, bottom, left, top, _, _, _, _, components = _SIZ.unpack_from(frame, start)
    depths = frame[start + _SIZ.size : start + _SIZ.size + 3 * components : 3]
    if len(depths) < components or not components or len(set(depths)) != 1:
        return None
    return Codestream(
        CodestreamKind.JPEG_2000,
        rows=bottom - top,
        columns=right - left,
        components=components,
        precision=(depths[0] & 0x7F) + 1,
        is_signed=bool(depths[0] & 0x80),
        has_colour_transform=_has_colour_transform(frame, start + 4 + length),
    )


def _has_colour_transform(frame: bytes, at: int) -> bool:
    """Find the COD segment behind SIZ (ISO/IEC 15444-1 A.6.1)."""
    while frame[at] == _MARKER[0] and frame[at + 1] != _SOT:
        if frame[at + 1] == _COD:
            # Lcod, Scod, progression order, layers; then the multiple component transformation.
            return frame[at + 8] == 1
        at += 2 + int.from_bytes(frame[at + 2 : at + 4])
    return False


_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOF55 = 0xF7
_SOS = 0xDA
_APP0, _APP14 = 0xE0, 0xEE
_STANDALONE = frozenset({0x01, *range(0xD0, 0xD9)})
"""Markers without a segment (ISO/IEC 10918-1 B.1.1.3)."""


def _read_jpeg(frame: bytes, kind: CodestreamKind) -> Codestream | None:
    frame_header = _SOF if kind is CodestreamKind.JPEG else {_SOF55}
    found: Codestream | None = None
    is_jfif, adobe_transform = False, None
    identifiers = b""
    for marker, segment in _segments(frame):
        if marker in frame_header:
            precision, rows, columns, components = struct.unpack_from(">BHHB", segment)
            identifiers = segment[6::3]
            found = Codestream(kind, rows, columns, components, precision)
        elif marker == _APP0 and segment.startswith(b"JFIF"):
            is_jfif = True
        elif marker == _APP14 and segment.startswith(b"Adobe"):
            adobe_transform = segment[_ADOBE_TRANSFORM]
    if found is None or found.components != len(b"RGB"):
        return found
    is_rgb = _is_rgb(identifiers, is_jfif=is_jfif, adobe_transform=adobe_transform)
    return replace(found, is_rgb=is_rgb)


def _segments(frame: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marker segments before the first scan (ISO/IEC 10918-1 B.1, 14495-1 C.1)."""
    if frame[:2] != b"\xff\xd8":
        return
    at = 2
    while True:
        at = frame.index(_MARKER, at)
        while frame[at] == _MARKER[0]:
            at += 1
        marker = frame[at]
        at += 1
        if marker in _STANDALONE:
            continue
        length = int.from_bytes(frame[at : at + 2])
        if marker == _SOS or length < _LENGTH_BYTES:
            return
        yield marker, frame[at + _LENGTH_BYTES : at + length]
        at += length


_MARKER = b"\xff"
_LENGTH_BYTES = 2
"""The length of a segment counts itself."""
_ADOBE_TRANSFORM = 11
"""Where an Adobe segment says its colour transform: 0 is none."""


def _is_rgb(identifiers: bytes, *, is_jfif: bool, adobe_transform: int | None) -> bool | None:
    if adobe_transform is not None:
        return adobe_transform == 0
    if identifiers == b"RGB":
        return True
    return False if is_jfif else None
