"""The walk that proves the structure of a DICOM file (PS3.5 7, PS3.10 7) before anything reads it.

Lengths beyond the end of the file and deep nesting stop Orthanc's parser. A file is sent to Orthanc
only when the walk has reached its end.
"""

from collections.abc import Container
from dataclasses import replace
from typing import BinaryIO

from services.dicom.byte_window import ByteWindow
from services.dicom.deflation import inflated_copy
from services.dicom.element_walk import ElementWalk
from services.dicom.layout import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    EXPLICIT_VR_LITTLE_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    FileLayout,
    WalkLimits,
)
from services.dicom.meta_header import MetaHeader, read_meta_header
from services.errors import FileRejected

_UNREADABLE_SYNTAXES = frozenset({"1.2.840.113619.5.2", "1.2.840.10008.1.2.4.95"})
"""GE's private mixed byte order, and deflated JPIP references: Orthanc refuses both."""


def walk(
    file: BinaryIO,
    limits: WalkLimits | None = None,
    *,
    keep: Container[int] = (),
    file_size: int | None = None,
) -> FileLayout:
    """Walk over all elements of a file and return its structure. Blocking.

    Accepts what Orthanc accepts: files without preamble, without meta header, of unknown transfer
    syntaxes (read as Explicit VR Little Endian), with odd lengths or unknown VRs. Zero bytes may
    follow the last element; `rewriting.prepare` leaves them out.

    Args:
        file: Seekable and binary; its position changes.
        limits: The largest structure that is accepted.
        keep: Tags of the top level whose elements are listed in `FileLayout.kept`.
        file_size: Of the whole file, in bytes, when `file` is only its beginning up to the head of
            its pixel data. The walk ends there.

    Raises:
        FileRejected: EMPTY_FILE, NOT_DICOM, TRUNCATED, MALFORMED, NESTED_TOO_DEEP,
            TOO_MANY_ELEMENTS, TOO_MANY_ITEMS, INFLATES_TOO_FAR or UNSUPPORTED_TRANSFER_SYNTAX.
    """
    limits = limits or WalkLimits()
    window = ByteWindow(file, file_size)
    if window.size == 0:
        raise FileRejected("EMPTY_FILE", "The file is empty.")
    meta = read_meta_header(window)
    if meta.transfer_syntax_uid in _UNREADABLE_SYNTAXES:
        message = f"Transfer syntax {meta.transfer_syntax_uid} is not supported."
        raise FileRejected("UNSUPPORTED_TRANSFER_SYNTAX", message)
    if meta.transfer_syntax_uid != DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN:
        return _walk_dataset(window, meta, limits, keep)
    with inflated_copy(file, meta.dataset_offset, limits) as inflated:
        layout = _walk_dataset(ByteWindow(inflated), meta, limits, keep)
    return replace(layout, is_deflated=True, file_size=window.size)


def _walk_dataset(
    window: ByteWindow, meta: MetaHeader, limits: WalkLimits, keep: Container[int]
) -> FileLayout:
    is_implicit_vr, is_little_endian = _encoding(window, meta)
    elements = ElementWalk(
        window,
        is_implicit_vr=is_implicit_vr,
        is_little_endian=is_little_endian,
        limits=limits,
        keep=keep,
    )
    end_offset = elements.walk(meta.dataset_offset)
    return FileLayout(
        transfer_syntax_uid=meta.transfer_syntax_uid
        or _transfer_syntax(is_implicit_vr=is_implicit_vr, is_little_endian=is_little_endian),
        is_implicit_vr=is_implicit_vr,
        is_little_endian=is_little_endian,
        is_deflated=False,
        has_preamble=meta.has_preamble,
        meta_offset=meta.meta_offset,
        dataset_offset=meta.dataset_offset,
        end_offset=end_offset,
        file_size=window.size,
        pixel_data_offset=elements.pixel_data_offset,
        pixel_data_length=elements.pixel_data_length,
        pixel_data_is_encapsulated=elements.pixel_data_is_encapsulated,
        fragment_count=elements.fragment_count,
        deepest_nesting=elements.deepest_nesting,
        element_count=elements.element_count,
        is_whole=window.is_whole,
        kept=elements.kept,
    )


def _transfer_syntax(*, is_implicit_vr: bool, is_little_endian: bool) -> str:
    if is_implicit_vr:
        return IMPLICIT_VR_LITTLE_ENDIAN
    return EXPLICIT_VR_LITTLE_ENDIAN if is_little_endian else EXPLICIT_VR_BIG_ENDIAN


def _encoding(window: ByteWindow, meta: MetaHeader) -> tuple[bool, bool]:
    """Return (implicit VR, little endian); the first element decides without a meta header.

    A file whose elements contradict its meta header is refused, as Orthanc refuses it.
    """
    first = window.read(meta.dataset_offset, 6)
    declared_implicit = meta.transfer_syntax_uid == IMPLICIT_VR_LITTLE_ENDIAN
    if len(first) < 6:  # noqa: PLR2004 - tag and VR; a file without dataset has neither
        return declared_implicit, meta.transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN
    has_vr = first[4:6].isalpha() and first[4:6].isupper()
    if meta.transfer_syntax_uid is None:
        little = int.from_bytes(first[:2], "little") <= int.from_bytes(first[:2], "big")
        return not has_vr, little or not has_vr
    if has_vr == declared_implicit:
        message = "The transfer syntax of this file says otherwise than its elements about VRs."
        raise FileRejected("MALFORMED", message)
    return not has_vr, meta.transfer_syntax_uid != EXPLICIT_VR_BIG_ENDIAN
