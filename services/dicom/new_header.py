"""Files with another header: read from a stored file, written beside it, pixel data untouched.

The pixel data goes from file to file as it is, so that nothing is decoded and a file of 4 GiB needs
no more memory than its header. What follows the pixel data, and what is no standard attribute of
its group, is left out.
"""

import io
from collections.abc import Callable
from contextlib import ExitStack
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.filebase import DicomIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset, write_file_meta_info
from pydicom.uid import PYDICOM_IMPLEMENTATION_UID, UID

from services.dicom.deflation import inflated_copy
from services.dicom.layout import (
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Element,
    FileLayout,
    WalkLimits,
)
from services.dicom.parser import walk
from services.errors import FileRejected

_PIXEL_DATA_GROUP = 0x7FE00000
_PIXEL_DATA = range(_PIXEL_DATA_GROUP, 0x7FE00011)
"""Extended offset tables, float and other pixel data."""

_SPOOL_BYTES = 16 * 1024 * 1024
"""Smaller files stay in memory while they are written."""
_CHUNK_BYTES = 1024 * 1024
_PREAMBLE = bytes(128) + b"DICM"


def rewritten(file: BinaryIO, change: Callable[[Dataset], Dataset], limits: WalkLimits) -> BinaryIO:
    """Write a file with another header into a temporary file. Blocking.

    Args:
        file: The stored file, seekable.
        change: Returns the new header, with SOPClassUID and SOPInstanceUID, by the one before.
        limits: The largest structure that is read.

    Returns:
        The new file at its beginning; closing deletes it.

    Raises:
        FileRejected: The file can't be read within the limits.
    """
    with ExitStack() as stack:
        layout = walk(file, limits, keep=_PIXEL_DATA)
        if layout.is_deflated:
            file = stack.enter_context(inflated_copy(file, layout.dataset_offset, limits))
        header = change(read_header(file, layout))
        target = cast("BinaryIO", SpooledTemporaryFile(max_size=_SPOOL_BYTES))  # noqa: SIM115  # the caller closes it
        try:
            _write(target, header, layout)
            for element in layout.kept:
                _copy(file, element, target)
            target.seek(0)
        except BaseException:
            target.close()
            raise
        return target


def read_header(file: BinaryIO, layout: FileLayout) -> Dataset:
    """Read all elements before the pixel data, their values when they are needed.

    Args:
        file: The file, or the inflated copy of a deflated one.
        layout: What `walk` found in it.

    Raises:
        FileRejected: MALFORMED when pydicom can't read what the walk could.
    """
    file.seek(layout.dataset_offset)
    try:
        return read_dataset(
            file,
            layout.is_implicit_vr,
            layout.is_little_endian,
            stop_when=lambda tag, _vr, _length: tag >= _PIXEL_DATA_GROUP,
        )
    except Exception as exc:
        raise FileRejected("MALFORMED", "The header of this file can't be read.") from exc


def explicit_header(header: Dataset) -> bytes:
    """Return the beginning of a file in Explicit VR Little Endian, up to its pixel data.

    Args:
        header: All elements before the pixel data.
    """
    target = io.BytesIO()
    _write_header(
        target, header, EXPLICIT_VR_LITTLE_ENDIAN, is_implicit_vr=False, is_little_endian=True
    )
    return target.getvalue()


def _write(target: BinaryIO, header: Dataset, layout: FileLayout) -> None:
    _write_header(
        target,
        header,
        _transfer_syntax(layout),
        is_implicit_vr=layout.is_implicit_vr,
        is_little_endian=layout.is_little_endian,
    )


def _write_header(
    target: BinaryIO,
    header: Dataset,
    transfer_syntax_uid: str,
    *,
    is_implicit_vr: bool,
    is_little_endian: bool,
) -> None:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = header.SOPClassUID
    meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID
    meta.TransferSyntaxUID = UID(transfer_syntax_uid)
    meta.ImplementationClassUID = PYDICOM_IMPLEMENTATION_UID
    writer = DicomIO(target)
    writer.write(_PREAMBLE)
    write_file_meta_info(writer, meta, enforce_standard=True)
    writer.is_implicit_VR = is_implicit_vr
    writer.is_little_endian = is_little_endian
    write_dataset(writer, header)


def _transfer_syntax(layout: FileLayout) -> str:
    """Return how the new file is encoded: as the old one, and not deflated."""
    if layout.pixel_data_is_encapsulated:
        return layout.transfer_syntax_uid
    if layout.is_implicit_vr:
        return IMPLICIT_VR_LITTLE_ENDIAN
    return EXPLICIT_VR_LITTLE_ENDIAN if layout.is_little_endian else EXPLICIT_VR_BIG_ENDIAN


def _copy(file: BinaryIO, element: Element, target: BinaryIO) -> None:
    file.seek(element.begin)
    left = element.end - element.begin
    while left and (piece := file.read(min(_CHUNK_BYTES, left))):
        target.write(piece)
        left -= len(piece)
