"""What DICOM files hold besides pictures: documents (PS3.3 A.45, C.24.2) and videos (PS3.5 8.2)."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import SEEK_END
from typing import BinaryIO

from services.dicom.elements import kept_elements
from services.dicom.layout import WalkLimits
from services.dicom.parser import walk
from services.errors import FileRejected

_ENCAPSULATED_DOCUMENT = 0x00420011
_ENCAPSULATED_DOCUMENT_LENGTH = 0x00420015


@dataclass(frozen=True, slots=True)
class DocumentKind:
    """What a file holds, beside its header.

    Attributes:
        media_type: For `Content-Type`.
        suffix: For names of files, with a dot.
        is_inline: A browser may show it on our page: it has a viewer for it, and runs no script
            of it there.
        is_video: It is the pixel data of the file.
    """

    media_type: str
    suffix: str
    is_inline: bool = False
    is_video: bool = False


_KINDS: Mapping[str, DocumentKind] = {
    "1.2.840.10008.5.1.4.1.1.104.1": DocumentKind("application/pdf", ".pdf", is_inline=True),
    # A browser applies style sheets to XML, and runs the scripts that they write.
    "1.2.840.10008.5.1.4.1.1.104.2": DocumentKind("text/xml", ".xml"),
    "1.2.840.10008.5.1.4.1.1.104.3": DocumentKind("model/stl", ".stl"),
    "1.2.840.10008.5.1.4.1.1.104.4": DocumentKind("model/obj", ".obj"),
    "1.2.840.10008.5.1.4.1.1.104.5": DocumentKind("model/mtl", ".mtl"),
}
"""By SOP class (PS3.4 B.5). It fixes the type: MIMETypeOfEncapsulatedDocument (0042,0012) of a file
may say anything, and would choose what a browser does with it."""


_MPEG_2 = DocumentKind("video/mpeg", ".mpg", is_video=True)
_MPEG_4 = DocumentKind("video/mp4", ".mp4", is_inline=True, is_video=True)
_VIDEOS: Mapping[str, DocumentKind] = {
    f"1.2.840.10008.1.2.4.{number}{fragmentable}": kind
    for numbers, kind in ((range(100, 102), _MPEG_2), (range(102, 109), _MPEG_4))
    for number in numbers
    for fragmentable in ("", ".1")
}
"""By transfer syntax (PS3.5 A.4.5 to A.4.11): MPEG-2, H.264 and HEVC."""


@dataclass(frozen=True, slots=True)
class DocumentPlace:
    """Where a document is in its file.

    Attributes:
        begin: First byte, from the beginning of the file.
        length: In bytes, without the byte that pads it to an even length.
    """

    begin: int
    length: int


def document_kind(
    sop_class_uid: str | None, transfer_syntax_uid: str | None = None
) -> DocumentKind | None:
    """Return what files of a SOP class or a transfer syntax hold; None when it is neither."""
    video = _VIDEOS.get(transfer_syntax_uid or "")
    return video or _KINDS.get(sop_class_uid or "")


def find_document(file: BinaryIO, limits: WalkLimits | None = None) -> DocumentPlace | None:
    """Find the document of a file.

    Args:
        file: The whole file; seekable.
        limits: Of the walk.

    Returns:
        None when there is none.

    Raises:
        FileRejected: With the codes of `walk.walk`; UNSUPPORTED_TRANSFER_SYNTAX when the dataset is
            deflated: the document has no place in the file then.
    """
    keep = {_ENCAPSULATED_DOCUMENT, _ENCAPSULATED_DOCUMENT_LENGTH}
    layout = walk(file, limits, keep=keep)
    if layout.is_deflated:
        message = "This document is stored in a compressed file. Download the DICOM file."
        raise FileRejected("UNSUPPORTED_TRANSFER_SYNTAX", message)
    elements = kept_elements(file, layout)
    if _ENCAPSULATED_DOCUMENT not in elements:
        return None
    place = elements[_ENCAPSULATED_DOCUMENT]
    if place.is_undefined_length or place.is_sequence:
        return None
    stored = place.end - place.value_begin
    declared = elements.numbers(_ENCAPSULATED_DOCUMENT_LENGTH, "I")[:1]
    # Values have an even length (PS3.5 7.1.1): the attribute tells whether the last byte counts.
    is_padded = declared == (stored - 1,)
    return DocumentPlace(place.value_begin, stored - is_padded)


VIDEO_HEAD_BYTES = 64 * 1024
"""Of the pixel data, for `find_video`: the basic offset table and the head of the fragment."""

_ITEM = 0xE000FFFE
_ITEM_HEAD = struct.Struct("<II")
_DELIMITER_BYTES = 8


def find_video(
    file: BinaryIO, file_size: int | None = None, limits: WalkLimits | None = None
) -> DocumentPlace | None:
    """Find the video of a file: the one fragment of its pixel data (PS3.5 8.2.5 to 8.2.11).

    Args:
        file: The beginning of the file up to `VIDEO_HEAD_BYTES` of its pixel data, or all of it.
        file_size: Of the whole file, in bytes; None when `file` is the whole file.
        limits: Of the walk.

    Returns:
        None when there is no video.

    Raises:
        FileRejected: With the codes of `walk.walk`; UNSUPPORTED_TRANSFER_SYNTAX when the video has
            several fragments, which stand in several places of the file.
    """
    layout = walk(file, limits, file_size=file_size)
    if layout.pixel_data_offset is None or not layout.pixel_data_is_encapsulated:
        return None
    table_bytes = _item_length(file, layout.pixel_data_offset)
    if table_bytes is None:
        return None
    first = layout.pixel_data_offset + _ITEM_HEAD.size + table_bytes
    length = _item_length(file, first)
    if length is None:
        return None
    place = DocumentPlace(first + _ITEM_HEAD.size, length)
    whole = file.seek(0, SEEK_END) if file_size is None else file_size
    if place.begin + place.length + _DELIMITER_BYTES != whole:
        message = "This video is stored in several parts. Download the DICOM file."
        raise FileRejected("UNSUPPORTED_TRANSFER_SYNTAX", message)
    return place


def _item_length(file: BinaryIO, offset: int) -> int | None:
    """Return the length of the item at an offset; None when there is none."""
    file.seek(offset)
    head = file.read(_ITEM_HEAD.size)
    if len(head) < _ITEM_HEAD.size:
        return None
    tag, length = _ITEM_HEAD.unpack(head)
    return length if tag == _ITEM else None
