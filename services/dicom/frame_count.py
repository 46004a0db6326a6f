"""How many frames of an instance can be shown, and in a sentence why none can."""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from pydicom.uid import UID

from services.dicom.header import ImageModule, InstanceHeader
from services.dicom.layout import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    FileLayout,
)
from services.dicom.values import is_valid_uid

_SIZE = struct.Struct(">4xHHIIIIIIIIH")
"""SOC and SIZ markers, then Lsiz, Rsiz, Xsiz, Ysiz, XOsiz, YOsiz, tile sizes and offsets, Csiz."""
_START = b"\xff\x4f\xff\x51"
_BOXES_MAX_BYTES = 4096
"""Room for the boxes of a JP2 file before the codestream: against PS3.5 8.2.4, and seen."""
_ITEM_HEADER_BYTES = 8
JPEG2000_SYNTAXES = frozenset(f"1.2.840.10008.1.2.4.{number}" for number in (90, 91, 92, 93))


@dataclass(frozen=True, slots=True)
class CodestreamSize:
    """The size of the image in a codestream; rows and columns in pixels."""

    rows: int
    columns: int
    components: int


def read_size(frame: bytes) -> CodestreamSize | None:
    """Read the size that a JPEG 2000 frame declares, None when it declares none."""
    start = frame.find(_START, 0, _BOXES_MAX_BYTES)
    if start < 0 or len(frame) < start + _SIZE.size:
        return None
    _, _, right, bottom, left, top, _, _, _, _, components = _SIZE.unpack_from(frame, start)
    return CodestreamSize(bottom - top, right - left, components)


def size_fault(file: BinaryIO, header: InstanceHeader, layout: FileLayout) -> str | None:
    """Tell why the first frame must not be decoded, None when nothing is wrong.

    Orthanc 1.10.1 with GDCM 3.0 was seen to abort (signal 6) while it decoded frames whose
    codestream and image attributes contradict each other; why is not known. Only the first frame
    is looked at here; all are when they are rendered, see `services.frames.pixels`.

    Args:
        file: Seekable and binary; its position is not kept.
        header: Of the file.
        layout: Of the file; without encapsulated pixel data there is nothing to check.
    """
    begin = layout.pixel_data_offset
    is_compressed = header.transfer_syntax_uid in JPEG2000_SYNTAXES
    if not is_compressed or begin is None or not layout.pixel_data_is_encapsulated:
        return None
    size = read_size(_first_fragment(file, begin))
    image = header.image
    if size is not None and (size.rows, size.columns) == (image.rows, image.columns):
        return None
    return "Its Rows and Columns are not those of its JPEG 2000 image."


def _first_fragment(file: BinaryIO, begin: int) -> bytes:
    """Read the beginning of what follows the basic offset table (PS3.5 A.4)."""
    file.seek(begin + 4)
    table_bytes = int.from_bytes(file.read(4), "little")
    file.seek(begin + 2 * _ITEM_HEADER_BYTES + table_bytes)
    return file.read(_BOXES_MAX_BYTES + _SIZE.size)


_NATIVE_SYNTAXES = frozenset(
    {
        IMPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_LITTLE_ENDIAN,
        EXPLICIT_VR_BIG_ENDIAN,
        DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    }
)
_FAMILIES = (
    ("1.2.840.10008.5.1.4.1.1.88.", "a structured report"),
    ("1.2.840.10008.5.1.4.1.1.104.", "an encapsulated document"),
    ("1.2.840.10008.5.1.4.1.1.11.", "a presentation state"),
    ("1.2.840.10008.5.1.4.1.1.9.", "a waveform"),
    ("1.2.840.10008.5.1.4.1.1.66", "raw or spatial data"),
    ("1.2.840.10008.5.1.4.1.1.481.3", "a radiotherapy structure set"),
    ("1.2.840.10008.5.1.4.1.1.481.5", "a radiotherapy plan"),
    ("1.2.840.10008.5.1.4.1.1.481.8", "a radiotherapy plan"),
    ("1.2.840.10008.5.1.4.1.1.481.", "a radiotherapy record"),
)
"""SOP classes without pixels, by the beginning of their UIDs (PS3.4 B.5); the first that fits."""
_RLE_LOSSLESS = "1.2.840.10008.1.2.5"
_SAMPLES = frozenset({1, 3, 4})
_BITS_ALLOCATED = frozenset({1, 8, 12, 16, 24, 32, 64})
_LARGEST_SIDE = 65_535
_FRAME_MAX_PIXELS = 64_000_000
_FRAGMENT_HEAD_BYTES = 8
_BITS = 8


def renderable_frames(
    header: InstanceHeader, layout: FileLayout | None = None, *, max_pixels: int = _FRAME_MAX_PIXELS
) -> tuple[int, str | None]:
    """Return the frames of an instance that can be proven, and a sentence when there are none.

    The count is the smaller of the declared one and of what the pixel data can hold.

    Args:
        header: From the file or from Orthanc.
        layout: What `walk` said about the file; without it the pixel data is taken to reach to
            the end of the file, as `header.pixel_data_bytes` says.
        max_pixels: Largest frame that is shown, in pixels.
    """
    fault = display_fault(header, layout, max_pixels=max_pixels)
    if fault is not None:
        return 0, fault
    declared = header.image.number_of_frames
    provable = _provable_frames(header, layout)
    count = max(declared or 1, 1)
    return count if provable is None else min(count, provable), None


def display_fault(
    header: InstanceHeader, layout: FileLayout | None = None, *, max_pixels: int = _FRAME_MAX_PIXELS
) -> str | None:
    """Tell in a sentence why an instance must not be rendered, None when it may.

    Stands between files with damaged image attributes and the decoders that die of them.

    Args:
        header: From the file or from Orthanc.
        layout: What `walk` said about the file, when it is at hand.
        max_pixels: Largest frame that is shown, in pixels.
    """
    image = header.image
    if not image.has_pixel_data:
        return _without_pixels(header.sop_class_uid)
    if not image.rows or not image.columns:
        return "Its Rows and Columns are missing."
    if not (0 < image.rows <= _LARGEST_SIDE and 0 < image.columns <= _LARGEST_SIDE):
        return "Its Rows and Columns make no sense."
    if image.rows * image.columns > max_pixels:
        return f"Its frames of {image.columns} x {image.rows} pixels are larger than allowed."
    return _format_fault(image) or _frames_fault(header) or _length_fault(header, layout)


def sop_class_name(uid: str | None) -> str | None:
    """Return the name of a SOP class (PS3.6 A), None when it is unknown or private."""
    if not uid or not is_valid_uid(uid):
        return None
    name = UID(uid).name
    return None if name == uid else name


def _without_pixels(sop_class_uid: str | None) -> str:
    uid = sop_class_uid or ""
    family = next((name for start, name in _FAMILIES if uid.startswith(start)), None)
    if family is not None:
        return f"This object is {family}; it has no image."
    return "Its pixel data is missing."


def _format_fault(image: ImageModule) -> str | None:
    if (1 if image.samples_per_pixel is None else image.samples_per_pixel) not in _SAMPLES:
        return f"Its SamplesPerPixel is {image.samples_per_pixel}, which is no image."
    if image.bits_allocated not in _BITS_ALLOCATED:
        return "Its BitsAllocated is missing or makes no sense."
    if image.bits_stored is not None and not 0 < image.bits_stored <= image.bits_allocated:
        return "Its BitsStored does not fit its BitsAllocated."
    return None


def _frames_fault(header: InstanceHeader) -> str | None:
    """Refuse what stops GDCM; native and RLE pixels need no GDCM and come in files like this."""
    if not header.image.lacks_number_of_frames:
        return None
    if header.transfer_syntax_uid in _NATIVE_SYNTAXES | {_RLE_LOSSLESS}:
        return None
    return "It has a FrameIncrementPointer, but its NumberOfFrames is missing."


def _length_fault(header: InstanceHeader, layout: FileLayout | None) -> str | None:
    if _provable_frames(header, layout) != 0:
        return None
    return "Its pixel data is shorter than one frame."


def _provable_frames(header: InstanceHeader, layout: FileLayout | None) -> int | None:
    """Return the frames that the pixel data can hold, None when nothing is known about it."""
    if header.frame_fragments is not None:
        return header.frame_fragments
    length = header.pixel_data_bytes
    if layout is not None and layout.pixel_data_length is not None:
        length = layout.pixel_data_length
    if length is None:
        return None
    if layout is None and header.transfer_syntax_uid not in _NATIVE_SYNTAXES:
        return length // _FRAGMENT_HEAD_BYTES
    return length * _BITS // _frame_bits(header.image)


def _frame_bits(image: ImageModule) -> int:
    pixels = (image.rows or 1) * (image.columns or 1)
    bits = pixels * (image.samples_per_pixel or 1) * (image.bits_allocated or 1)
    # PS3.3 C.7.6.3.1.2: two chrominance samples for every two pixels.
    return max(1, bits * 2 // 3) if image.photometric_interpretation == "YBR_FULL_422" else bits
