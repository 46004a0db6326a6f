"""The check that decides whether a file may be stored."""

from dataclasses import dataclass
from typing import BinaryIO

from services.dicom.frame_count import renderable_frames, size_fault
from services.dicom.header import InstanceHeader
from services.dicom.layout import FileLayout, WalkLimits
from services.dicom.parser import walk
from services.dicom.reading import HEADER_TAGS, read_header
from services.dicom.values import is_valid_uid
from services.errors import FileRejected


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFile:
    """A file that may be stored.

    Attributes:
        number_of_frames: Frames that are proven to be there and can be shown.
        not_renderable_reason: A sentence when there are none, else None.
        beginning: The file up to the value of its pixel data, for its header; None where that is
            long or deflated.
    """

    layout: FileLayout
    header: InstanceHeader
    number_of_frames: int
    not_renderable_reason: str | None
    beginning: bytes | None = None

    @property
    def has_uncounted_frames(self) -> bool:
        """Whether only the whole file can tell how many frames there are.

        Fragments prove the number of encapsulated frames (PS3.5 A.4): a declared number can be too
        high, and so can the number of entries of an offset table.
        """
        layout = self.layout
        is_cut_off = layout.pixel_data_is_encapsulated and not layout.is_whole
        return is_cut_off and self.number_of_frames > 1


def check_file(
    file: BinaryIO,
    *,
    limits: WalkLimits | None = None,
    file_size: int | None = None,
    is_stored: bool = False,
) -> CheckedFile:
    """Check a file and read its header. Blocking: call it in a thread.

    Args:
        file: Seekable and binary; its position changes.
        limits: The largest structure that is accepted.
        file_size: Of the whole file, in bytes, when `file` is only its beginning; see `walk`.
        is_stored: Orthanc has stored the file already, so invalid UIDs are accepted.

    Raises:
        FileRejected: With the codes of `walk`, or MISSING_UID or INVALID_UID.
    """
    limits = limits or WalkLimits()
    layout = walk(file, limits, keep=HEADER_TAGS, file_size=file_size)
    header = read_header(file, layout, limits)
    if not is_stored:
        _check_uids(header)
    number_of_frames, reason = renderable_frames(header, layout, max_pixels=limits.frame_max_pixels)
    if number_of_frames and (fault := size_fault(file, header, layout)):
        number_of_frames, reason = 0, fault
    return CheckedFile(
        layout=layout,
        header=header,
        number_of_frames=number_of_frames,
        not_renderable_reason=reason,
        beginning=_beginning(file, layout),
    )


_BEGINNING_MAX_BYTES = 64 * 1024
"""Headers of single images have 2 to 20 kB; what is longer is read again where it is needed."""


def _beginning(file: BinaryIO, layout: FileLayout) -> bytes | None:
    end = layout.file_size if layout.pixel_data_offset is None else layout.pixel_data_offset
    if layout.is_deflated or end > _BEGINNING_MAX_BYTES:
        return None
    file.seek(0)
    return file.read(end)


def _check_uids(header: InstanceHeader) -> None:
    required = {
        "StudyInstanceUID": header.study.study_instance_uid,
        "SeriesInstanceUID": header.series.series_instance_uid,
        "SOPInstanceUID": header.sop_instance_uid,
    }
    for keyword, uid in required.items():
        if not uid:
            raise FileRejected("MISSING_UID", f"The file has no {keyword}.")
        if not is_valid_uid(uid):
            message = (
                f"The {keyword} of this file is no valid UID: digits and dots, at most 64 of them."
            )
            raise FileRejected("INVALID_UID", message)
