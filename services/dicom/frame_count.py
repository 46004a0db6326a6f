"""How many frames of an instance can be shown, or the reason why none can."""

from typing import BinaryIO

from pydicom.uid import UID

from services.dicom.codestream import (
    CODESTREAM_HEAD_BYTES,
    CODESTREAM_KINDS,
    RLE_LOSSLESS,
    read_codestream,
)
from services.dicom.display import (
    NATIVE_SYNTAXES,
    PixelDescription,
    ValueType,
    photometric_interpretation,
)
from services.dicom.header import InstanceHeader
from services.dicom.layout import FileLayout
from services.dicom.pixel_support import codestream_fault, format_fault
from services.dicom.values import is_valid_uid

_ITEM_HEADER_BYTES = 8


def size_fault(file: BinaryIO, header: InstanceHeader, layout: FileLayout) -> str | None:
    """Return why the first frame must not be decoded, None when it may.

    Only the first frame is checked here; each frame is checked when it is rendered.

    Args:
        file: Seekable and binary; its position changes.
        header: Of the file.
        layout: Of the file; without encapsulated pixel data there is nothing to check.
    """
    begin = layout.pixel_data_offset
    kind = CODESTREAM_KINDS.get(header.transfer_syntax_uid or "")
    if kind is None or begin is None or not layout.pixel_data_is_encapsulated:
        return None
    fragment = _first_fragment(file, begin)
    if not fragment and not layout.is_whole:
        return None  # it follows a long offset table, and was not read
    codestream = read_codestream(fragment, kind)
    return codestream_fault(codestream, kind, describe_pixels(header))


def describe_pixels(header: InstanceHeader) -> PixelDescription:
    """Return how an instance stores its frames, without planar configuration and palette.

    These two are not in the header of the index.
    """
    image = header.image
    allocated = image.bits_allocated or 0
    stored = allocated if image.bits_stored is None else image.bits_stored
    value_type = ValueType.INTEGER
    if image.bits_stored is None and image.pixel_representation is None:
        # PS3.3 C.7.6.24: neither is there beside float pixels.
        value_type = _FLOATS.get(allocated, value_type)
    return PixelDescription(
        transfer_syntax_uid=header.transfer_syntax_uid or "",
        rows=image.rows or 0,
        columns=image.columns or 0,
        samples_per_pixel=1 if image.samples_per_pixel is None else image.samples_per_pixel,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=stored - 1,
        is_signed=image.pixel_representation == 1,
        photometric_interpretation=photometric_interpretation(image.photometric_interpretation),
        value_type=value_type,
    )


_FLOATS = {32: ValueType.FLOAT, 64: ValueType.DOUBLE}


def _first_fragment(file: BinaryIO, begin: int) -> bytes:
    """Read the beginning of what follows the basic offset table (PS3.5 A.4)."""
    file.seek(begin + 4)
    table_bytes = int.from_bytes(file.read(4), "little")
    file.seek(begin + 2 * _ITEM_HEADER_BYTES + table_bytes)
    return file.read(CODESTREAM_HEAD_BYTES)


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
"""SOP classes without pixels, by the beginning of their UIDs (PS3.4 B.5); first match wins."""
_LARGEST_SIDE = 65_535
_FRAME_MAX_PIXELS = 64_000_000
_FRAGMENT_HEAD_BYTES = 8
_BITS = 8


def renderable_frames(
    header: InstanceHeader, layout: FileLayout | None = None, *, max_pixels: int = _FRAME_MAX_PIXELS
) -> tuple[int, str | None]:
    """Return how many frames an instance has, and a reason in a sentence when there are none.

    The smaller of the declared number and of the number that the pixel data can hold.

    Args:
        header: From the file or from Orthanc.
        layout: What `walk` found in the file; without it, `header.pixel_data_bytes` counts.
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
    """Return in a sentence why an instance must not be rendered, None when it may.

    Damaged image attributes crash decoders, so they are checked first.

    Args:
        header: From the file or from Orthanc.
        layout: What `walk` found in the file, if it is known.
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
    return (
        format_fault(describe_pixels(header))
        or _encapsulation_fault(header, layout)
        or ("Its palette is missing." if image.lacks_palette else None)
        or _frames_fault(header)
        or _length_fault(header, layout)
    )


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


def _frames_fault(header: InstanceHeader) -> str | None:
    """Refuse files that crash GDCM. Native and RLE pixels need no GDCM, and files have them."""
    if not header.image.lacks_number_of_frames:
        return None
    if header.transfer_syntax_uid in NATIVE_SYNTAXES | {RLE_LOSSLESS}:
        return None
    return "It has a FrameIncrementPointer, but its NumberOfFrames is missing."


def _encapsulation_fault(header: InstanceHeader, layout: FileLayout | None) -> str | None:
    """Refuse pixel data that is not encoded as its transfer syntax says: nobody knows how it is."""
    if layout is None or layout.pixel_data_offset is None:
        return None
    is_native = header.transfer_syntax_uid in NATIVE_SYNTAXES
    if is_native == layout.pixel_data_is_encapsulated:
        is_said, is_so = ("uncompressed", "compressed")[:: 1 if is_native else -1]
        return f"Its transfer syntax says {is_said} pixel data, and it is {is_so}."
    return None


def _length_fault(header: InstanceHeader, layout: FileLayout | None) -> str | None:
    if _provable_frames(header, layout) != 0:
        return None
    return "Its pixel data is shorter than one frame."


def _provable_frames(header: InstanceHeader, layout: FileLayout | None) -> int | None:
    """Return how many frames the pixel data can hold, None when that is unknown."""
    if header.frame_fragments is not None:
        return header.frame_fragments
    length = header.pixel_data_bytes
    if layout is not None and layout.pixel_data_length is not None:
        length = layout.pixel_data_length
    if length is None:
        return None
    is_encapsulated = header.transfer_syntax_uid not in NATIVE_SYNTAXES
    if layout is not None:
        is_encapsulated = layout.pixel_data_is_encapsulated
    if is_encapsulated:
        return length // _FRAGMENT_HEAD_BYTES
    return length * _BITS // max(1, describe_pixels(header).frame_bits)
