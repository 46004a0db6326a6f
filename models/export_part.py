"""What an export holds: its list of files, and its DICOMDIR, in parts."""

from datetime import datetime
from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from models.stored import NamedDocument


class ExportPartDocument(NamedDocument):
    """A part of an export; `_id` is the job's identifier, a dash and the 0-based number.

    The files themselves stay in Orthanc: they are packed while they are downloaded.
    """

    job_id: str
    number: int
    """Of the part, 0-based."""
    names: list[str]
    """Paths of files in the export, with `/`; no patient data."""
    instance_ids: list[str]
    """Orthanc's identifier of each."""
    revisions: list[str]
    """Of each as it was when the export was prepared: another one is another export's."""
    content: bytes = b""
    """A piece of the DICOMDIR, in the order of the parts."""
    expires_at: datetime

    class Settings:
        """Collection and indexes."""

        name = "exportParts"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("jobID", ASCENDING), ("number", ASCENDING)]),
            IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
        ]
