"""A worklist entry as the DICOM file that Orthanc's worklist plugins serve.

Both plugins read `*.wl` files of one folder at every C-FIND: the sample plugin of Orthanc 1.5 and
newer (`ModalityWorklists`) and its successor of 2025 (`orthanc-worklists`).
"""

import io
import uuid

from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import UID, ExplicitVRLittleEndian

from models import WorklistEntryDocument
from models.worklist import WorklistStatus

SUFFIX = ".wl"

_WORKLIST_SOP_CLASS = UID("1.2.840.10008.5.1.4.31")
"""Modality Worklist Information Model - FIND (PS3.4 K.6.1.1)."""

_STEP_STATUSES = {
    WorklistStatus.SCHEDULED: "SCHEDULED",
    WorklistStatus.IN_PROGRESS: "STARTED",
}
"""ScheduledProcedureStepStatus (PS3.3 C.4.10) of what is served."""

_EMPTY = (
    "ReferencedStudySequence",
    "ReferencedPatientSequence",
    "RequestingPhysician",
    "RequestedProcedurePriority",
    "PatientTransportArrangements",
    "AdmissionID",
    "CurrentPatientLocation",
    "PatientWeight",
    "ConfidentialityConstraintOnPatientDataDescription",
    "PatientState",
    "PregnancyStatus",
    "MedicalAlerts",
    "Allergies",
    "SpecialNeeds",
)
"""Keys of type 2 that are not planned here (PS3.4 K.6.1.2.2): a scanner that asks for one gets an
empty value."""
_EMPTY_IN_STEP = ("ScheduledStationName", "ScheduledProcedureStepLocation", "PreMedication")


def encode_entry(entry: WorklistEntryDocument) -> bytes:
    """Write an entry as a DICOM file (PS3.10); the same entry is always the same bytes."""
    dataset = Dataset()
    dataset.SpecificCharacterSet = "ISO_IR 192"
    for keyword in _EMPTY:
        setattr(dataset, keyword, Sequence() if keyword.endswith("Sequence") else None)
    dataset.AccessionNumber = entry.accession_number
    dataset.ReferringPhysicianName = entry.referring_physician_name
    dataset.PatientName = entry.patient_name
    dataset.PatientID = entry.patient_id
    dataset.IssuerOfPatientID = entry.issuer_of_patient_id
    dataset.PatientBirthDate = _dicom_date(entry.patient_birth_date)
    dataset.PatientSex = entry.patient_sex
    dataset.StudyInstanceUID = entry.study_instance_uid
    dataset.RequestedProcedureDescription = entry.requested_procedure_description
    dataset.RequestedProcedureID = entry.requested_procedure_id
    dataset.ScheduledProcedureStepSequence = Sequence([_step(entry)])
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = _WORKLIST_SOP_CLASS
    # The identifier of the entry as a UID (PS3.5 B.2).
    meta.MediaStorageSOPInstanceUID = UID(f"2.25.{uuid.UUID(entry.id).int}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta = meta
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _step(entry: WorklistEntryDocument) -> Dataset:
    step = Dataset()
    for keyword in _EMPTY_IN_STEP:
        setattr(step, keyword, None)
    step.Modality = entry.modality
    step.ScheduledStationAETitle = entry.scheduled_station_ae_title
    step.ScheduledProcedureStepStartDate = _dicom_date(entry.scheduled_procedure_step_start_date)
    step.ScheduledProcedureStepStartTime = _dicom_time(entry.scheduled_procedure_step_start_time)
    step.ScheduledPerformingPhysicianName = entry.scheduled_performing_physician_name
    step.ScheduledProcedureStepDescription = entry.scheduled_procedure_step_description
    step.ScheduledProcedureStepID = entry.scheduled_procedure_step_id
    step.ScheduledProcedureStepStatus = _STEP_STATUSES[entry.status]
    return step


def _dicom_date(text: str | None) -> str | None:
    return None if text is None else text.replace("-", "")


def _dicom_time(text: str | None) -> str | None:
    return None if text is None else text.replace(":", "")
