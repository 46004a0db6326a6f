"""Patients, as their studies describe them."""

from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from models.stored import StoredDocument


class PatientDocument(StoredDocument):
    """One PatientID. Name, birth date and sex are those of the study that changed last."""

    patient_id: str
    """`""` when the files carry none."""
    patient_name: str | None = None
    patient_birth_date: str | None = None
    """ISO 8601."""
    patient_sex: str | None = None
    has_conflicting_demographics: bool = False
    """Files under this PatientID disagree on name or birth date."""
    number_of_studies: int = 0
    name_words: list[str]
    """Words of the name, without case and accents, for search by prefix."""
    order_patient_name: str = ""
    """The name without case and accents, for ordering."""

    class Settings:
        """Collection and indexes."""

        name = "patients"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("patientID", ASCENDING)]),
            IndexModel([("orderPatientName", ASCENDING), ("_id", ASCENDING)]),
            IndexModel([("nameWords", ASCENDING), ("orderPatientName", ASCENDING)]),
        ]
