"""What is stored in MongoDB and how: one Beanie document per DICOM level.

Stored field names are the names of the public API (`models.names`); `_id` is Orthanc's own
deterministic identifier, so writing the same object twice is writing it once.
"""

from models.instance import InstanceDocument
from models.patient import PatientDocument
from models.series import SeriesDocument
from models.stored import StoredDocument
from models.study import StudyDocument
from models.thumbnail import Thumbnail

DOCUMENTS: tuple[type[StoredDocument], ...] = (
    PatientDocument,
    StudyDocument,
    SeriesDocument,
    InstanceDocument,
)

__all__ = [
    "DOCUMENTS",
    "InstanceDocument",
    "PatientDocument",
    "SeriesDocument",
    "StoredDocument",
    "StudyDocument",
    "Thumbnail",
]
