"""Which entries a study completes."""

from datetime import UTC, datetime, timedelta
from typing import Any

from services.worklist.arrivals import completed_by

NOON = datetime(2026, 3, 31, 12, tzinfo=UTC)


def entry(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "_id": name,
        "patientID": "P1",
        "studyInstanceUID": "1.2.3",
        "accessionNumber": "A1",
        "modality": "CT",
        "openedAt": NOON - timedelta(hours=1),
        **fields,
    }


def study(**fields: Any) -> dict[str, Any]:
    return {
        "_id": "study",
        "patientID": "P1",
        "studyInstanceUID": "1.2.3",
        "accessionNumbers": ["A1"],
        "modalitiesInStudy": ["CT"],
        "updatedAt": NOON,
        **fields,
    }


def names(stored: dict[str, Any], *entries: dict[str, Any]) -> list[str]:
    return [one["_id"] for one in completed_by(stored, entries)]


def test_the_entry_of_its_uid_is_completed_whatever_the_modality_is_called() -> None:
    assert names(study(modalitiesInStudy=["DX"]), entry("a", modality="CR")) == ["a"]


def test_steps_of_one_study_are_completed_by_the_images_of_their_modality() -> None:
    ct, pt = entry("ct"), entry("pt", modality="PT")
    assert names(study(), ct, pt) == ["ct"]
    assert names(study(modalitiesInStudy=["CT", "PT"]), ct, pt) == ["ct", "pt"]


def test_a_scanner_with_uids_of_its_own_is_known_by_accession_number_and_modality() -> None:
    own = study(studyInstanceUID="9.9")
    assert names(own, entry("a"), entry("other modality", modality="MR")) == ["a"]
    assert names(study(studyInstanceUID="9.9", accessionNumbers=[]), entry("a")) == []
    without = {name: value for name, value in own.items() if name != "accessionNumbers"}
    assert names(without, entry("a")) == []


def test_a_study_of_another_patient_completes_nothing() -> None:
    assert names(study(patientID="P2"), entry("a")) == []


def test_the_same_patient_id_of_another_issuer_is_another_patients() -> None:
    ours = entry("a", issuerOfPatientID="US", patientBirthDate="1960-02-03")
    theirs = study(issuerOfPatientID="THEM", patientBirthDate="1960-02-03")
    assert names(theirs, ours) == []
    assert names(theirs | {"issuerOfPatientID": "US"}, ours) == ["a"]


def test_who_names_no_issuer_is_known_by_the_uid_or_the_birth_date() -> None:
    for named, unnamed in (
        (study(issuerOfPatientID="THEM"), entry("a", patientBirthDate="1960-02-03")),
        (study(), entry("a", issuerOfPatientID="US", patientBirthDate="1960-02-03")),
    ):
        assert names(named, unnamed) == ["a"]
        own_uid = named | {"studyInstanceUID": "9.9"}
        assert names(own_uid, unnamed) == []
        assert names(own_uid | {"patientBirthDate": "1961-02-03"}, unnamed) == []
        assert names(own_uid | {"patientBirthDate": "1960-02-03"}, unnamed) == ["a"]


def test_an_entry_that_was_opened_again_waits_for_new_images() -> None:
    assert names(study(), entry("a", openedAt=NOON)) == []
    # A label changes the study as well, and nothing came.
    labelled = study(latestIndexedAt=NOON - timedelta(hours=2))
    assert names(labelled, entry("a")) == []
