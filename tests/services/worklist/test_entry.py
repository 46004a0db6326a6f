"""What a worklist entry may say."""

import dataclasses
from typing import Any

import pytest

from models import WorklistEntryDocument
from services.errors import InvalidInput
from services.worklist.entry import EntryValues, checked, with_identifiers

_NO_AE_TITLE = "is not an AE title: 1 to 16 ASCII characters without backslash."
VALUES = EntryValues(
    accession_number="A1",
    patient_id="P1",
    patient_name="Huber^Anna",
    modality="CT",
    scheduled_procedure_step_start_date="2026-03-31",
)


def test_values_are_stored_without_padding_and_empty_ones_not_at_all() -> None:
    padded = dataclasses.replace(
        VALUES,
        accession_number=" A1 ",
        patient_id="\u00a0P1 ",
        patient_name=" Huber ^Anna^ ",
        modality=" ct",
        patient_sex="f",
        referring_physician_name=" ",
        study_instance_uid="",
    )
    assert checked(padded) == dataclasses.replace(VALUES, patient_sex="F")


@pytest.mark.parametrize(
    "name",
    [
        "Łukasz^Żółć",
        "Müller^Jörg=山田^太郎=やまだ^たろう",
        "Жюль",
        "김^희중",
        "محمد‌رضا",  # a Persian name needs its zero-width non-joiner
        "山田\u3000太郎",
        "a" * 64 + "=" + "b" * 64 + "=" + "c" * 64,
        "^^^Dr.^PhD",
    ],
)
def test_names_of_every_script_stay_as_they_are(name: str) -> None:
    assert checked(dataclasses.replace(VALUES, patient_name=name)).patient_name == name


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("accession_number", "", "accessionNumber must not be empty."),
        ("accession_number", "1" * 17, "accessionNumber may have at most 16 characters."),
        ("patient_id", "\u200b", "patientID must not be empty."),
        ("patient_id", "1" * 65, "patientID may have at most 64 characters."),
        (
            "patient_id",
            "a\\b",
            "patientID must not contain backslashes, line breaks or control characters.",
        ),
        (
            "patient_name",
            "a\nb",
            "patientName must not contain backslashes, line breaks or control characters.",
        ),
        (
            "patient_name",
            "\ud800",
            "patientName must not contain backslashes, line breaks or control characters.",
        ),
        (
            "patient_name",
            "a" * 65,
            "patientName may have three groups (=) of at most 64 characters.",
        ),
        (
            "patient_name",
            "a=b=c=d",
            "patientName may have three groups (=) of at most 64 characters.",
        ),
        ("patient_name", "a^b^c^d^e^f", "patientName may have five components (^) in each group."),
        ("patient_name", "^=^", "patientName must not be empty."),
        ("patient_sex", "W", "patientSex is M, F or O."),
        (
            "study_instance_uid",
            "1.02",
            "studyInstanceUID is not a UID: at most 64 digits and dots, as 1.2.840.113619.2.",
        ),
        (
            "study_instance_uid",
            "1." + "2" * 63,
            "studyInstanceUID is not a UID: at most 64 digits and dots, as 1.2.840.113619.2.",
        ),
        ("modality", "C-T", "modality is not a code as CT: 1 to 16 of A-Z, 0-9, space and _."),
        (
            "scheduled_station_ae_title",
            "ÄTITLE",
            f"scheduledStationAETitle {_NO_AE_TITLE}",
        ),
        (
            "requested_procedure_description",
            "x" * 65,
            "requestedProcedureDescription may have at most 64 characters.",
        ),
    ],
)
def test_what_dicom_does_not_allow_is_refused(field: str, value: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked(dataclasses.replace(VALUES, **{field: value}))
    assert caught.value.message == message
    assert caught.value.argument == f"input.{message.partition(' ')[0]}"


def test_identifiers_that_are_missing_are_made_and_differ() -> None:
    one, other = with_identifiers(checked(VALUES)), with_identifiers(checked(VALUES))
    for name in ("study_instance_uid", "requested_procedure_id", "scheduled_procedure_step_id"):
        assert one[name] != other[name]
    again = checked(EntryValues(**one))
    assert dataclasses.asdict(again) == one


@pytest.mark.parametrize(
    ("changes", "is_kept"),
    [
        ({}, True),
        ({"patient_name": "Other"}, True),
        ({"issuer_of_patient_id": "US"}, True),
        ({"patient_id": "P9"}, False),
        ({"patient_id": "P9", "study_instance_uid": "1.2.3"}, True),
    ],
)
def test_an_entry_of_another_patient_gets_another_uid(
    changes: dict[str, Any], is_kept: bool
) -> None:
    """A scanner that has the entry makes images of the former patient under the former UID."""
    kept = WorklistEntryDocument.model_construct(
        **dataclasses.asdict(VALUES)
        | {
            "study_instance_uid": "1.2.3",
            "requested_procedure_id": "RP",
            "scheduled_procedure_step_id": "SP",
        }
    )
    fields = with_identifiers(checked(dataclasses.replace(VALUES, **changes)), kept)
    assert (fields["study_instance_uid"] == "1.2.3") is is_kept
    assert fields["requested_procedure_id"] == "RP"


def test_identifiers_that_are_given_stay() -> None:
    given = dataclasses.replace(
        VALUES,
        study_instance_uid="1.2.3",
        requested_procedure_id="RP",
        scheduled_procedure_step_id="SP",
    )
    assert with_identifiers(checked(given)) == dataclasses.asdict(given)
