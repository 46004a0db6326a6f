"""What a JPEG 2000 codestream says about its own size (ISO/IEC 15444-1, A.5.1)."""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from services.dicom.header import InstanceHeader
from services.dicom.layout import FileLayout

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
    is looked at here; all are when they are rendered, see `services.frames.codestreams`.

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
