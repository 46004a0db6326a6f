"""Studies: what the worklist shows, searches and orders by."""

from datetime import datetime
from typing import ClassVar

from pymongo import ASCENDING, DESCENDING, IndexModel

from models.stored import StoredDocument
from models.thumbnail import Thumbnail


class StudyDocument(StoredDocument):
    """One study of one patient, with the patient as this study's own files describe it."""

    orthanc_patient_id: str
    study_instance_uid: str
    study_id: str | None = None
    study_date: str | None = None
    """ISO 8601."""
    study_time: str | None = None
    """ISO 8601, with up to six fractional digits."""
    study_description: str | None = None
    accession_number: str | None = None
    referring_physician_name: str | None = None
    institution_name: str | None = None

    patient_id: str
    patient_name: str | None = None
    patient_birth_date: str | None = None
    patient_sex: str | None = None

    # Rolled up from the series, never incremented.
    modalities_in_study: list[str]
    number_of_series: int = 0
    number_of_instances: int = 0
    number_of_frames: int = 0
    demographics: list[list[str | None]]
    """Distinct (PatientName, PatientBirthDate) of its files."""
    thumbnail: Thumbnail | None = None

    # Derived from the above, for filters and orders.
    name_words: list[str]
    search_words: list[str]
    """Words of patient name, patient ID, accession number and description."""
    order_study_date: str = ""
    """StudyDate and StudyTime; `""` when there is no date, so that every study has a place."""
    order_patient_name: str = ""

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
            IndexModel([("studyInstanceUID", ASCENDING), ("updatedAt", DESCENDING)]),
            IndexModel([("orthancPatientId", ASCENDING), ("orderStudyDate", DESCENDING)]),
            IndexModel([("patientID", ASCENDING), ("orderStudyDate", DESCENDING)]),
            IndexModel([("accessionNumber", ASCENDING), ("orderStudyDate", DESCENDING)]),
            IndexModel([("modalitiesInStudy", ASCENDING), ("orderStudyDate", DESCENDING)]),
            IndexModel([("nameWords", ASCENDING), ("orderStudyDate", DESCENDING)]),
            IndexModel([("searchWords", ASCENDING), ("orderStudyDate", DESCENDING)]),
        ]
