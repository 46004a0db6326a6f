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
    return read_elements(header_stream(file, layout), layout, specific_tags)


def read_elements(
    stream: BinaryIO, layout: FileLayout, specific_tags: Sequence[BaseTag | int] | None = None
) -> Dataset:
    """Read elements up to group 7FE0, the values still bytes.

    Args:
        stream: Positioned at the first element.
        layout: Of the file that they are from.
        specific_tags: Elements of the top level to read; None for all.

    Raises:
        FileRejected: MALFORMED when pydicom can't read what the walk could.
    """
    try:
        return read_dataset(
            stream,
            layout.is_implicit_vr,
            layout.is_little_endian,
            stop_when=_is_pixel_data,
            specific_tags=None if specific_tags is None else list(specific_tags),
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
