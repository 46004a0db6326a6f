"""Deflated datasets (PS3.5 A.5), inflated within limits into a temporary file."""

import zlib
from collections.abc import Iterator
from tempfile import SpooledTemporaryFile
from typing import BinaryIO, cast

from services.dicom.layout import WalkLimits
from services.errors import FileRejected

_CHUNK_BYTES = 256 * 1024
_SPOOL_BYTES = 4 * 1024 * 1024
"""Smaller datasets stay in memory."""
_RATIO_FREE_BYTES = 16 * 1024 * 1024
"""Ratios are checked from this size on: an empty picture may compress to a thousandth."""


def inflated_copy(file: BinaryIO, dataset_offset: int, limits: WalkLimits) -> BinaryIO:
    """Copy a deflated file to a temporary file in which the dataset is inflated.

    Args:
        file: The file.
        dataset_offset: Offset of the first compressed byte; the bytes before it are copied.
        limits: Largest output and ratio.

    Returns:
        A seekable temporary file, which closing deletes; the caller closes it.

    Raises:
        FileRejected: INFLATES_TOO_FAR, TRUNCATED or MALFORMED.
    """
    spool = cast("BinaryIO", SpooledTemporaryFile(max_size=_SPOOL_BYTES))  # noqa: SIM115 - the caller closes it
    try:
        file.seek(0)
        spool.write(file.read(dataset_offset))
        _inflate(file, spool, dataset_offset, limits)
    except BaseException:
        spool.close()
        raise
    return spool


def _inflate(file: BinaryIO, spool: BinaryIO, dataset_offset: int, limits: WalkLimits) -> None:
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    written = 0
    try:
        while not inflater.eof and (compressed := file.read(_CHUNK_BYTES)):
            for piece in _pieces(inflater, compressed):
                written += len(piece)
                _check(written, file.tell() - dataset_offset, limits)
                spool.write(piece)
    except zlib.error as exc:
        message = "The deflated dataset of this file is damaged and can't be inflated."
        raise FileRejected("MALFORMED", message) from exc
    if not inflater.eof:
        raise FileRejected("TRUNCATED", "The file ends in the middle of its deflated dataset.")


def _pieces(inflater: "zlib._Decompress", compressed: bytes) -> Iterator[bytes]:
    while compressed and not inflater.eof:
        piece = inflater.decompress(compressed, _CHUNK_BYTES)
        compressed = inflater.unconsumed_tail
        yield piece


def _check(written: int, consumed: int, limits: WalkLimits) -> None:
    too_large = written > limits.inflated_max_bytes
    too_dense = written > max(_RATIO_FREE_BYTES, consumed * limits.inflated_max_ratio)
    if too_large or too_dense:
        message = "The deflated dataset of this file inflates further than this server allows."
        raise FileRejected("INFLATES_TOO_FAR", message)


def deflated_tail(chunks: Iterator[bytes], dataset_offset: int) -> BinaryIO:
    """Write chunks to a temporary file, deflating what follows the meta header (PS3.5 A.5).

    Args:
        chunks: A whole file with its dataset inflated.
        dataset_offset: Bytes that are written as they are.

    Returns:
        A seekable file; the caller closes it, and then it is gone.
    """
    spool = cast("BinaryIO", SpooledTemporaryFile(max_size=_SPOOL_BYTES))  # noqa: SIM115 - the caller closes it
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    plain = dataset_offset
    try:
        for chunk in chunks:
            spool.write(chunk[:plain])
            spool.write(deflater.compress(chunk[plain:]))
            plain = max(0, plain - len(chunk))
        spool.write(deflater.flush())
    except BaseException:
        spool.close()
        raise
    return spool
