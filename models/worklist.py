"""Planned examinations, which scanners ask for by modality worklist (PS3.4 K)."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from pymongo import ASCENDING, DESCENDING, IndexModel

from models.stored import NamedDocument


class WorklistStatus(StrEnum):
    """How far a planned examination is."""

    SCHEDULED = "SCHEDULED"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    DISCONTINUED = "DISCONTINUED"


OPEN_STATUSES = (WorklistStatus.SCHEDULED, WorklistStatus.IN_PROGRESS)
"""Of entries that scanners get."""


class WorklistEntryDocument(NamedDocument):
    """One scheduled procedure step of one patient; `_id` is 32 random hex digits.

    Names are DICOM keywords. Dates and times are in ISO 8601; what is absent is None.
    """

    version: str
    """A new random value at every write."""
    status: WorklistStatus

    accession_number: str
    patient_id: str
    issuer_of_patient_id: str | None = None
    patient_name: str
    patient_birth_date: str | None = None
    patient_sex: str | None = None
    study_instance_uid: str
    """The scanner writes it into its images."""
    referring_physician_name: str | None = None
    requested_procedure_id: str
    requested_procedure_description: str | None = None
    modality: str
    scheduled_station_ae_title: str | None = None
    scheduled_procedure_step_id: str
    scheduled_procedure_step_start_date: str
    scheduled_procedure_step_start_time: str | None = None
    scheduled_procedure_step_description: str | None = None
    scheduled_performing_physician_name: str | None = None

    order_scheduled: str
    """Start date and start time, `2026-03-31T08:30:00`; a day without a time comes first."""
    orthanc_study_id: str | None = None
    """The study that completed it; None where it was completed by hand or is not."""
    opened_at: datetime
    """When it was made, or opened again: only what arrives later completes it."""
    created_at: datetime
    updated_at: datetime

    class Settings:
        """Collection and indexes: the order alone, and each filter with the order."""

        name = "worklist"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("orderScheduled", ASCENDING), ("_id", ASCENDING)]),
            *(
                IndexModel([(field, ASCENDING), ("orderScheduled", ASCENDING), ("_id", ASCENDING)])
                for field in (
                    "status",
                    "patientID",
                    "accessionNumber",
                    "modality",
                    "scheduledStationAETitle",
                )
            ),
            IndexModel([("studyInstanceUID", ASCENDING)]),
            IndexModel([("updatedAt", DESCENDING)]),
        ]
