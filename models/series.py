"""Series of a study."""

from datetime import datetime
from typing import ClassVar

from pydantic import Field
from pymongo import ASCENDING, DESCENDING, IndexModel

from models.attributes import SeriesAttributes, StudyStatement
from models.instance import EARLIER_ORDER
from models.stored import StoredDocument
from models.thumbnail import Thumbnail


class SeriesDocument(SeriesAttributes, StoredDocument):
    """One series as most of its files describe it, with the counts of its stored instances."""

    orthanc_study_id: str
    orthanc_patient_id: str

    # Rolled up from the instances, never incremented.
    number_of_instances: int = 0
    number_of_frames: int = 0
    """Renderable frames only."""
    study_statements: list[StudyStatement] = Field(default_factory=list)
    """What its files say about the study and the patient, the most frequent first."""
    total_bytes: int = 0
    """Of the stored files."""
    stack_order: str = EARLIER_ORDER
    """Which key of its instances is the order of the stack: see `INSTANCE_ORDERS`."""
    thumbnail: Thumbnail | None = None
    has_primary_frames: bool = True
    """Some frames are no secondary capture, document or localizer: they may stand for the study."""
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
