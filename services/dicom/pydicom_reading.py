"""pydicom's view of a header that `walk` accepted."""

import io
from collections.abc import Sequence
from typing import BinaryIO

from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag

from services.dicom.layout import FileLayout
from services.errors import FileRejected

_PIXEL_DATA_GROUP = 0x7FE0

_WHOLE_BYTES = 4 * 1024 * 1024
"""Shorter headers are read at once: pydicom's small reads would each hand over the interpreter
lock, which makes files that are read at the same time wait for each other."""


def read_header_dataset(
    file: BinaryIO, layout: FileLayout, specific_tags: Sequence[BaseTag | int] | None = None
) -> Dataset:
    """Read what stands before group 7FE0, the values still bytes.

    Args:
        file: The file, or its inflated copy; its position is not kept.
        layout: What `walk` said about it.
        specific_tags: Elements of the top level to read; None for all.

    Raises:
        FileRejected: MALFORMED when pydicom can't read what the walk could.
    """
    tags = None if specific_tags is None else list(specific_tags)
    return _read(header_stream(file, layout), layout, tags)


def read_kept_elements(file: BinaryIO, layout: FileLayout) -> Dataset:
    """Read the elements that the walk kept, and no others: pydicom takes 1 us for each of those.

    Args:
        file: The file, or its inflated copy; its position is not kept.
        layout: What `walk` said about it.

    Raises:
        FileRejected: MALFORMED when pydicom can't read what the walk could.
    """
    elements = io.BytesIO()
    for begin, end in sorted(layout.kept.values()):
        file.seek(begin)
        elements.write(file.read(end - begin))
    elements.seek(0)
    return _read(elements, layout)


def _read(stream: BinaryIO, layout: FileLayout, tags: list[BaseTag | int] | None = None) -> Dataset:
    try:
        return read_dataset(
            stream,
            layout.is_implicit_vr,
            layout.is_little_endian,
            stop_when=_is_pixel_data,
            specific_tags=tags,
        )
    except Exception as exc:  # pydicom raises whatever the bytes lead it to
        raise FileRejected("MALFORMED", "The header of this file can't be read.") from exc


def header_stream(file: BinaryIO, layout: FileLayout) -> BinaryIO:
    """Position a file at its dataset, or copy a short header up to PixelData's value.

    Args:
        file: The file, or its inflated copy; its position is not kept.
        layout: What `walk` said about it.
    """
    file.seek(layout.dataset_offset)
    if layout.pixel_data_offset is None or layout.is_deflated:
        return file
    length = layout.pixel_data_offset - layout.dataset_offset
    return io.BytesIO(file.read(length)) if length <= _WHOLE_BYTES else file


def _is_pixel_data(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group >= _PIXEL_DATA_GROUP
