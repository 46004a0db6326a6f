"""The file that the worklist plugins of Orthanc read."""

import io
from datetime import UTC, datetime
from typing import Any

import pydicom
import pytest

from models import WorklistEntryDocument
from models.worklist import WorklistStatus
from services.worklist.dicom_file import encode_entry

NOW = datetime(2026, 3, 31, tzinfo=UTC)


def entry(**fields: Any) -> WorklistEntryDocument:
    values: dict[str, Any] = {
        "id": "0123456789abcdef0123456789abcdef",
        "version": "v",
        "status": WorklistStatus.SCHEDULED,
        "accession_number": "A1",
        "patient_id": "P1",
        "patient_name": "Müller^Jörg=山田^太郎",
        "study_instance_uid": "1.2.3",
        "requested_procedure_id": "RP1",
        "modality": "CT",
        "scheduled_procedure_step_id": "SP1",
        "scheduled_procedure_step_start_date": "2026-03-31",
        "order_scheduled": "2026-03-31T",
        "opened_at": NOW,
        "created_at": NOW,
        "updated_at": NOW,
        **fields,
    }
    return WorklistEntryDocument.model_construct(**values)


def test_everything_that_is_planned_is_in_the_file() -> None:
    content = encode_entry(
        entry(
            status=WorklistStatus.IN_PROGRESS,
            issuer_of_patient_id="HOSPITAL",
            patient_birth_date="1960-02-03",
            patient_sex="F",
            referring_physician_name="Łukasz",
            requested_procedure_description="Schädel",
            scheduled_station_ae_title="CT1",
            scheduled_procedure_step_start_time="08:30:00.500000",
            scheduled_procedure_step_description="Thorax",
            scheduled_performing_physician_name="Жук",
        )
    )
    read = pydicom.dcmread(io.BytesIO(content))
    assert read.file_meta.MediaStorageSOPClassUID == "1.2.840.10008.5.1.4.31"
    assert read.file_meta.MediaStorageSOPInstanceUID == "2.25.1512366075204170929049582354406559215"
    found = {one.keyword: str(one.value) for one in read if one.VR != "SQ" and not one.is_empty}
    assert found == {
        "SpecificCharacterSet": "ISO_IR 192",
        "AccessionNumber": "A1",
        "ReferringPhysicianName": "Łukasz",
        "PatientName": "Müller^Jörg=山田^太郎",
        "PatientID": "P1",
        "IssuerOfPatientID": "HOSPITAL",
        "PatientBirthDate": "19600203",
        "PatientSex": "F",
        "StudyInstanceUID": "1.2.3",
        "RequestedProcedureDescription": "Schädel",
        "RequestedProcedureID": "RP1",
    }
    [step] = read.ScheduledProcedureStepSequence
    assert {one.keyword: str(one.value) for one in step if not one.is_empty} == {
        "Modality": "CT",
        "ScheduledStationAETitle": "CT1",
        "ScheduledProcedureStepStartDate": "20260331",
        "ScheduledProcedureStepStartTime": "083000.500000",
        "ScheduledPerformingPhysicianName": "Жук",
        "ScheduledProcedureStepDescription": "Thorax",
        "ScheduledProcedureStepID": "SP1",
        "ScheduledProcedureStepStatus": "STARTED",
    }


def test_keys_of_type_2_are_there_without_a_value() -> None:
    read = pydicom.dcmread(io.BytesIO(encode_entry(entry())))
    for keyword in ("PatientBirthDate", "PatientSex", "PatientWeight", "MedicalAlerts"):
        assert read[keyword].is_empty
    assert read.ScheduledProcedureStepSequence[0]["ScheduledStationAETitle"].is_empty


def test_the_same_entry_is_the_same_bytes() -> None:
    assert encode_entry(entry()) == encode_entry(entry())


@pytest.mark.parametrize("status", [WorklistStatus.COMPLETED, WorklistStatus.DISCONTINUED])
def test_closed_entries_have_no_file(status: WorklistStatus) -> None:
    with pytest.raises(KeyError):
        encode_entry(entry(status=status))
