"""What became of one file that was sent."""

from dataclasses import dataclass
from enum import StrEnum

from services.dicom.header import InstanceHeader
from services.errors import Error
from services.orthanc.identifiers import OrthancIds


class StoreStatus(StrEnum):
    """The outcomes; the last three carry an error."""

    STORED = "STORED"
    ALREADY_STORED = "ALREADY_STORED"
    CONFLICT = "CONFLICT"
    """The same UIDs with other content are stored; they stay."""
    REJECTED = "REJECTED"
    """The file itself is at fault: sending it again does not help."""
    FAILED = "FAILED"
    """Something else is at fault: the file can be sent again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreResult:
    """One per DICOM file; members of archives are named "archive.zip/member".

    Attributes:
        frame_count: Frames that can be shown, of what is stored.
        header: Of the file as it is stored, with the patient that was asked for; None when the
            file could not be read.
        ids: Orthanc's identifiers of the instance; None unless it is stored and indexed.
        error: None for STORED and ALREADY_STORED.
    """

    file_name: str
    status: StoreStatus
    frame_count: int = 0
    header: InstanceHeader | None = None
    ids: OrthancIds | None = None
    error: Error | None = None

    @property
    def instance_id(self) -> str | None:
        """Orthanc's id of the instance that is stored."""
        return self.ids.instance if self.ids else None

    @property
    def study_id(self) -> str | None:
        """Orthanc's id of its study."""
        return self.ids.study if self.ids else None
