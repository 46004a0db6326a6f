"""Series of a study."""

from datetime import datetime
from typing import ClassVar

from pymongo import ASCENDING, DESCENDING, IndexModel

from models.stored import StoredDocument
from models.thumbnail import Thumbnail


class SeriesDocument(StoredDocument):
    """One series, with the counts of the instances that are stored for it."""

    orthanc_study_id: str
    orthanc_patient_id: str
    series_instance_uid: str
    series_number: int | None = None
    modality: str | None = None
    series_description: str | None = None
    body_part_examined: str | None = None
    protocol_name: str | None = None
    manufacturer: str | None = None

    # Rolled up from the instances, never incremented.
    number_of_instances: int = 0
    number_of_frames: int = 0
    """Renderable frames only."""
    demographics: list[list[str | None]]
    """Distinct (PatientName, PatientBirthDate) of its files."""
    thumbnail: Thumbnail | None = None
    latest_indexed_at: datetime | None = None

    class Settings:
        """Collection and indexes."""

        name = "series"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel(
                [
                    ("orthancStudyId", ASCENDING),
                    ("seriesNumber", ASCENDING),
                    ("seriesInstanceUID", ASCENDING),
                ]
            ),
            IndexModel([("seriesInstanceUID", ASCENDING), ("latestIndexedAt", DESCENDING)]),
        ]
