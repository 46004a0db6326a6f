"""Studies: what the worklist shows, searches and orders by."""

from datetime import datetime
from typing import ClassVar

from pydantic import Field
from pymongo import ASCENDING, DESCENDING, IndexModel

from models.attributes import Demographics, StudyAttributes
from models.deleted_study import FormerLabel
from models.stored import StoredDocument
from models.thumbnail import Thumbnail


def facet(attribute: str, value: str) -> str:
    """Return a value of `StudyDocument.facets`.

    Args:
        attribute: Stored name, such as `patientSex`.
        value: Folded as for search.
    """
    return f"{attribute}:{value}"


class StudyDocument(StudyAttributes, StoredDocument):
    """One study of one patient, with its attributes as most of its own files say."""

    orthanc_patient_id: str

    # Rolled up from the series, never incremented.
    modalities_in_study: list[str]
    number_of_series: int = 0
    number_of_instances: int = 0
    number_of_frames: int = 0
    total_bytes: int = 0
    """Of the stored files."""
    demographics_of_files: list[Demographics] = Field(default_factory=list)
    """Everything that its files say about who the patient is, the most frequent first."""
    accession_numbers: list[str] = Field(default_factory=list)
    """Of its files, the most frequent first: the study is found by each."""
    thumbnail: Thumbnail | None = None

    labels: list[str] = Field(default_factory=list)
    """Given by people, in the order given; no file holds them. Absent where there is none."""
    former_labels: list[FormerLabel] = Field(default_factory=list)
    """Those that were taken from it in the last days, each once. Absent where there is none."""

    # Derived from the above, for filters and orders.
    name_words: list[str]
    search_words: list[str]
    """Words of patient name, patient ID, accession number and description, of all its files."""
    facets: list[str] = Field(default_factory=list)
    """`attribute:value` of what has no index of its own, of all its files: sex, body parts and
    whether there are frames as a whole; description, referring physician, institution by words."""
    order_study_date: str = ""
    """StudyDate and StudyTime; `""` when there is no date, so that every study has a place."""
    order_patient_name: str = ""
    order_accession_number: str = ""
    """The accession number, `""` when there is none."""

    created_at: datetime
    updated_at: datetime
    """When anything in the study last changed."""
    latest_indexed_at: datetime | None = None
    """The newest `indexedAt` of its instances: shows a replacement that changes no count."""

    class Settings:
        """Collection and indexes: each order alone, and each filter with the usual order."""

        name = "studies"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("orderStudyDate", DESCENDING), ("_id", DESCENDING)]),
            IndexModel([("orderPatientName", ASCENDING), ("_id", ASCENDING)]),
            IndexModel([("updatedAt", DESCENDING), ("_id", DESCENDING)]),
            IndexModel([("createdAt", DESCENDING), ("_id", DESCENDING)]),
            IndexModel([("patientID", ASCENDING), ("_id", ASCENDING)]),
            IndexModel([("orderAccessionNumber", ASCENDING), ("_id", ASCENDING)]),
            IndexModel([("studyInstanceUID", ASCENDING), ("updatedAt", DESCENDING)]),
            IndexModel([("orthancPatientId", ASCENDING), ("orderStudyDate", DESCENDING)]),
            IndexModel([("patientID", ASCENDING), ("orderStudyDate", DESCENDING)]),
            IndexModel([("accessionNumbers", ASCENDING), ("orderStudyDate", DESCENDING)]),
            IndexModel([("modalitiesInStudy", ASCENDING), ("orderStudyDate", DESCENDING)]),
            IndexModel([("nameWords", ASCENDING), ("orderStudyDate", DESCENDING)]),
            IndexModel([("searchWords", ASCENDING), ("orderStudyDate", DESCENDING)]),
            IndexModel([("patientBirthDate", ASCENDING), ("orderStudyDate", DESCENDING)]),
            IndexModel([("facets", ASCENDING), ("orderStudyDate", DESCENDING)]),
            IndexModel([("labels", ASCENDING), ("orderStudyDate", DESCENDING)]),
        ]
