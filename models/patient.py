"""Patients, as their studies describe them."""

from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from models.attributes import Demographics
from models.stored import StoredDocument


class PatientDocument(Demographics, StoredDocument):
    """One PatientID, with the demographics of the study whose newest instance came last."""

    patient_id: str
    """Without padding; `""` when the files carry none."""
    has_conflicting_demographics: bool = False
    """Files under this PatientID contradict each other on name, birth date, sex or issuer."""
    number_of_studies: int = 0
    name_words: list[str]
    """Words of all names in its files, without case and accents, for search by prefix."""
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
