"""The elements that a walk kept, as attributes."""

import io
import struct
from typing import BinaryIO

from pydicom.charset import python_encoding

from services.dicom.attributes import Attributes, DatasetAttributes, PlainAttributes
from services.dicom.element_names import SHORT_VRS, bytes_text
from services.dicom.layout import FileLayout
from services.dicom.pydicom_reading import read_elements
from services.errors import FileRejected

_CHARACTER_SET = 0x00080005
_HEAD_BYTES = 8
"""Tag, VR and length of 16 bits."""
_MOST_BYTES = 128 * 1024 * 1024
"""Of all that is read, which is in memory: functional groups of 100,000 frames have less."""
_SPAN_BYTES = 64 * 1024
"""Elements that stand this close are read at once, with what stands between them."""


def read_kept_elements(file: BinaryIO, layout: FileLayout) -> Attributes:
    """Read the elements that the walk kept, and no others.

    Args:
        file: The file, or its inflated copy; its position is not kept.
        layout: What `walk` said about it.

    Raises:
        FileRejected: TOO_MANY_ELEMENTS when they are too large, MALFORMED when pydicom can't read
            what the walk could.
    """
    size = sum(end - begin for begin, end in layout.kept.values())
    if size > _MOST_BYTES:
        found, most = bytes_text(size), bytes_text(_MOST_BYTES)
        message = f"The attributes of this file have {found}; {most} are the limit."
        raise FileRejected("TOO_MANY_ELEMENTS", message)
    elements = _kept_bytes(file, layout)
    if not layout.is_implicit_vr:
        plain = _plain_attributes(elements, is_little_endian=layout.is_little_endian)
        if plain is not None:
            return plain
    return DatasetAttributes(read_elements(io.BytesIO(b"".join(elements)), layout))


def _kept_bytes(file: BinaryIO, layout: FileLayout) -> list[bytes]:
    places = sorted(layout.kept.values())
    if not places or places[-1][1] - places[0][0] > _SPAN_BYTES:
        return [_bytes_at(file, begin, end) for begin, end in places]
    start = places[0][0]
    span = _bytes_at(file, start, places[-1][1])
    return [span[begin - start : end - start] for begin, end in places]


def _bytes_at(file: BinaryIO, begin: int, end: int) -> bytes:
    file.seek(begin)
    return file.read(end - begin)


def _plain_attributes(elements: list[bytes], *, is_little_endian: bool) -> PlainAttributes | None:
    """Read elements without pydicom, which takes 4 us for each and does no more about these.

    Returns:
        None when an element is not plain: a sequence, an unknown VR, or a character set that
        pydicom does not know and might fail on.
    """
    unpack = struct.Struct("<HH2s" if is_little_endian else ">HH2s").unpack_from
    values = {}
    for element in elements:
        group, number, vr = unpack(element)
        if vr not in SHORT_VRS:
            return None
        values[group << 16 | number] = vr.decode(), element[_HEAD_BYTES:]
    if _CHARACTER_SET in values and not _is_known(*values[_CHARACTER_SET]):
        return None
    return PlainAttributes(values, is_little_endian=is_little_endian)


def _is_known(vr: str, character_sets: bytes) -> bool:
    terms = character_sets.rstrip(b" \0").decode("latin_1").split("\\")
    return vr == "CS" and all(term in python_encoding for term in terms)
