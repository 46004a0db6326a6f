"""What the indexer is given: one SOP instance as Orthanc holds it."""

from dataclasses import dataclass

from services.dicom.header import InstanceHeader
from services.orthanc.identifiers import OrthancIds


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
    """One stored instance, whether it was uploaded here or found in Orthanc.

    Attributes:
        revision: 8 lower-case hex digits that change when Orthanc's file is replaced.
        file_size_bytes: Size of the stored file, in bytes.
        number_of_frames: Frames that can be shown, 0 when there are none.
        not_renderable_reason: A sentence for a person when `number_of_frames` is 0.
    """

    header: InstanceHeader
    ids: OrthancIds
    revision: str
    file_size_bytes: int
    number_of_frames: int
    not_renderable_reason: str | None
