"""The preamble and the File Meta Information of a DICOM file (PS3.10 7.1)."""

import struct
from dataclasses import dataclass

from services.dicom.byte_window import ByteWindow
from services.dicom.element_bytes import LONG_VRS, bytes_texts, tag_text
from services.errors import FileRejected

_PREAMBLE_BYTES = 128
_MAGIC = b"DICM"
_TRANSFER_SYNTAX_ELEMENT = 0x0010
_MAX_ELEMENTS = 1000
"""PS3.10 defines 14."""
_FIRST_TAGS = (b"\x08\x00", b"\x00\x08")
"""Group 0008 in both byte orders: where a dataset without meta header begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MetaHeader:
    """Where the dataset begins, and its encoding as declared.

    Attributes:
        meta_offset: Byte offset of the first element of group 0002, None without a meta header.
        dataset_offset: Byte offset of the first element of the dataset.
        transfer_syntax_uid: None when the file declares none.
    """

    has_preamble: bool
    meta_offset: int | None
    dataset_offset: int
    transfer_syntax_uid: str | None


def read_meta_header(window: ByteWindow) -> MetaHeader:
    """Read preamble and meta header; a file may also begin with group 0002 or 0008.

    FileMetaInformationGroupLength must not reach beyond the file, and is otherwise ignored: DCMTK
    and pydicom also find the end of the meta header by its group number.

    Raises:
        FileRejected: NOT_DICOM, TRUNCATED, MALFORMED or UNSUPPORTED_TRANSFER_SYNTAX.
    """
    head = window.read(0, _PREAMBLE_BYTES + len(_MAGIC))
    has_preamble = head[_PREAMBLE_BYTES:] == _MAGIC
    start = len(head) if has_preamble else 0
    group = window.read(start, 2)
    if group != b"\x02\x00":
        if not has_preamble and group not in _FIRST_TAGS:
            raise FileRejected("NOT_DICOM", "This is not a DICOM file.")
        return MetaHeader(
            has_preamble=has_preamble,
            meta_offset=None,
            dataset_offset=start,
            transfer_syntax_uid=None,
        )
    dataset_offset, transfer_syntax_uid = _walk_meta(window, start)
    return MetaHeader(
        has_preamble=has_preamble,
        meta_offset=start,
        dataset_offset=dataset_offset,
        transfer_syntax_uid=transfer_syntax_uid,
    )


def _walk_meta(window: ByteWindow, offset: int) -> tuple[int, str | None]:
    transfer_syntax_uid = None
    for _ in range(_MAX_ELEMENTS):
        if window.read(offset, 2) != b"\x02\x00":
            return offset, transfer_syntax_uid
        element, value_offset, length = _meta_element(window, offset)
        if element == _TRANSFER_SYNTAX_ELEMENT:
            transfer_syntax_uid = _uid(window.read(value_offset, min(length, 66)))
        offset = value_offset + length
    raise FileRejected("MALFORMED", "The meta header of this file has far too many elements.")


def _meta_element(window: ByteWindow, offset: int) -> tuple[int, int, int]:
    head = window.read(offset, 12)
    if len(head) < 8:  # noqa: PLR2004 - tag, VR and length
        raise FileRejected("TRUNCATED", "The file ends in the middle of its meta header.")
    _, element, vr, length = struct.unpack_from("<HH2sH", head)
    value_offset = offset + 8
    if vr in LONG_VRS and len(head) == 12:  # noqa: PLR2004 - PS3.5 7.1.2
        length, value_offset = int.from_bytes(head[8:], "little"), offset + 12
    if not vr.isalpha():
        raise FileRejected("MALFORMED", "The meta header of this file is damaged.")
    announced = length
    if element == 0 and length == 4:  # noqa: PLR2004 - FileMetaInformationGroupLength, UL
        announced += int.from_bytes(window.read(value_offset, 4), "little")
    if value_offset + announced > window.size:
        wanted, present = bytes_texts(announced, max(0, window.size - value_offset))
        message = (
            f"The file ends in the middle of its meta header {tag_text(2, element)}: "
            f"{wanted} were announced, {present} are there."
        )
        raise FileRejected("TRUNCATED", message)
    return element, value_offset, length


def _uid(value: bytes) -> str | None:
    uid = value.rstrip(b"\0 ").strip()
    if not uid:
        return None
    if len(uid) > 64 or not set(uid) <= set(b"0123456789."):  # noqa: PLR2004 - PS3.5 9.1
        message = "The transfer syntax of this file is no valid UID."
        raise FileRejected("UNSUPPORTED_TRANSFER_SYNTAX", message)
    return uid.decode("ascii")
