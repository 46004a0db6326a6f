"""Prepares a file for Orthanc: with a clean preamble and, on request, with another patient.

All other bytes are unchanged. New elements are placed between ranges of the original file, so that
pixel data is never in memory.
"""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import BinaryIO

from services.dicom.deflation import deflated_tail, inflated_copy
from services.dicom.layout import FileLayout, WalkLimits
from services.dicom.patient_override import (
    PatientOverride,
    Splice,
    patient_splices,
    validate_override,
)
from services.files import FileRange, became_shorter, extent_of

_CHUNK_BYTES = 1024 * 1024
_PREAMBLE_BYTES = 128
_TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""TIFF and BigTIFF in both byte orders: dual-personality files of pathology (PS3.10 7.5)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedFile:
    """A file as it is sent: ranges of the original file and new bytes between them.

    Attributes:
        parts: New bytes, or (begin, end) ranges of `source`.
        source: The original, or a temporary file that holds it deflated again.
        length: Bytes in all.
        is_overridden: It has another patient than the original.
        owns_source: `close` closes `source`.
    """

    parts: tuple[bytes | tuple[int, int], ...]
    source: BinaryIO
    length: int
    is_overridden: bool = False
    owns_source: bool = False

    def pieces(self) -> Iterator[bytes | FileRange]:
        """Iterate over the bytes; for bytes of a real file, over their ranges in it.

        Blocking, can be repeated.

        Raises:
            FileRejected: TRUNCATED when the file has become shorter.
        """
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
            elif (extent := extent_of(self.source, *part)) is not None:
                yield extent
            else:
                yield from self._read(*part)

    def chunks(self) -> Iterator[bytes]:
        """Iterate over the bytes in chunks of at most 1 MiB.

        Blocking, can be repeated.

        Raises:
            FileRejected: TRUNCATED when the file has become shorter.
        """
        for part in self.parts:
            if isinstance(part, bytes):
                yield part
            else:
                yield from self._read(*part)

    def _read(self, position: int, end: int) -> Iterator[bytes]:
        while position < end:
            self.source.seek(position)
            piece = self.source.read(min(_CHUNK_BYTES, end - position))
            if not piece:
                raise became_shorter()
            position += len(piece)
            yield piece

    def md5(self) -> str:
        """Return the MD5 that Orthanc will report for the bytes, in lower-case hex; blocking."""
        digest = hashlib.md5(usedforsecurity=False)
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    def close(self) -> None:
        """Remove the temporary file, when there is one."""
        if self.owns_source:
            self.source.close()


def prepare(
    file: BinaryIO,
    layout: FileLayout,
    *,
    override: PatientOverride | None = None,
    modified_at: datetime | None = None,
    keep_tiff_preamble: bool = False,
    limits: WalkLimits | None = None,
) -> PreparedFile:
    """Prepare a file for Orthanc. Blocking; only `chunks` and `pieces` read the pixel data.

    The preamble becomes zeros, unless it is TIFF's and may stay. Zero bytes behind the last
    element are left out, because Orthanc refuses them. A deflated file with another patient is
    inflated, spliced and deflated again in a temporary file; without one its bytes stay.

    Args:
        file: The file, open until the last chunk was read.
        layout: What `walk` found in it.
        override: The new patient, None to keep the one of the file.
        modified_at: When the patient is changed, with its offset from UTC; None for now.
        keep_tiff_preamble: Keep the preamble of a file that is also a TIFF file.
        limits: Those of the walk; used for deflated files only.

    Raises:
        InvalidInput: The new PatientID or PatientName is no valid value.
        FileRejected: MALFORMED when the header can't be rewritten.
    """
    if override is not None:
        validate_override(override.patient_id, override.patient_name)
        if override.patient_id is None and override.patient_name is None:
            override = None
    modified_at = modified_at or datetime.now(UTC)
    if not layout.is_deflated:
        splices = patient_splices(file, layout, override, modified_at) if override else []
        end = layout.end_offset
        return _prepared(file, layout, splices, end, keep_tiff_preamble=keep_tiff_preamble)
    if override is None:
        end = layout.file_size
        return _prepared(file, layout, [], end, keep_tiff_preamble=keep_tiff_preamble)
    with inflated_copy(file, layout.dataset_offset, limits or WalkLimits()) as inflated:
        splices = patient_splices(inflated, layout, override, modified_at)
        plain = _prepared(
            inflated, layout, splices, layout.end_offset, keep_tiff_preamble=keep_tiff_preamble
        )
        source = deflated_tail(plain.chunks(), layout.dataset_offset)
    size = source.seek(0, 2)
    return PreparedFile(
        parts=((0, size),), source=source, length=size, is_overridden=True, owns_source=True
    )


def _prepared(
    file: BinaryIO,
    layout: FileLayout,
    splices: list[Splice],
    end: int,
    *,
    keep_tiff_preamble: bool,
) -> PreparedFile:
    parts: list[bytes | tuple[int, int]] = []
    position = 0
    if layout.has_preamble and not (keep_tiff_preamble and _is_tiff(file)):
        parts.append(bytes(_PREAMBLE_BYTES))
        position = _PREAMBLE_BYTES
    for splice in splices:
        parts += [(position, splice.begin), splice.replacement]
        position = splice.end
    parts.append((position, end))
    length = sum(len(p) if isinstance(p, bytes) else p[1] - p[0] for p in parts)
    return PreparedFile(parts=tuple(parts), source=file, length=length, is_overridden=bool(splices))


def _is_tiff(file: BinaryIO) -> bool:
    file.seek(0)
    return file.read(4) in _TIFF_MAGICS
