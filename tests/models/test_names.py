import pytest

from models.names import contract_name


@pytest.mark.parametrize(
    ("python_name", "public_name"),
    [
        ("id", "id"),
        ("patient_id", "patientID"),
        ("study_instance_uid", "studyInstanceUID"),
        ("study_instance_uids", "studyInstanceUIDs"),
        ("sop_class_uid", "sopClassUID"),
        ("study_id", "studyID"),
        ("orthanc_study_id", "orthancStudyId"),
        ("orthanc_url", "orthancUrl"),
        ("archive_url", "archiveUrl"),
        ("modalities_in_study", "modalitiesInStudy"),
    ],
)
def test_a_python_name_becomes_the_name_of_the_contract(python_name: str, public_name: str) -> None:
    assert contract_name(python_name) == public_name
