"""Which of the things that files say about their study and patient is shown."""

from datetime import UTC, datetime, timedelta

import pytest

from services.index.statements import (
    MAX_STATEMENTS,
    Statement,
    are_contradictory,
    merge,
    resolve_demographics,
    resolve_study,
    values_of,
)

BEGIN = datetime(2026, 1, 2, tzinfo=UTC)


def said(instances: int, at: int = 0, **attributes: str) -> Statement:
    return Statement(attributes, instances, BEGIN + timedelta(seconds=at))


def test_most_files_decide_whoever_came_last() -> None:
    statements = [said(20, patientName="Huber"), said(1, at=9, patientName="Attacker")]
    assert resolve_demographics(statements)["patientName"] == "Huber"


def test_the_latest_decides_between_equals() -> None:
    statements = [said(1, at=1, patientName="New"), said(1, patientName="Old")]
    for order in (statements, statements[::-1]):
        assert resolve_demographics(order)["patientName"] == "New"


def test_no_patient_is_put_together_from_two_people() -> None:
    statements = [
        said(3, patientName="Huber", patientBirthDate="1950-01-01"),
        said(2, patientName="A", patientBirthDate="2001-01-01", patientSex="M"),
        said(2, patientName="B", patientBirthDate="2001-01-01", patientSex="M"),
    ]
    assert resolve_demographics(statements) == {
        "patientName": "Huber",
        "patientBirthDate": "1950-01-01",
        "patientSex": None,
        "issuerOfPatientID": None,
    }


def test_what_most_files_leave_out_comes_from_one_that_agrees_with_them() -> None:
    statements = [
        said(3, patientName="Huber"),
        said(1, patientName="Huber", patientBirthDate="1950-01-01"),
        said(2, patientName="Other", patientBirthDate="2001-01-01", patientSex="M"),
    ]
    assert resolve_demographics(statements) == {
        "patientName": "Huber",
        "patientBirthDate": "1950-01-01",
        "patientSex": None,
        "issuerOfPatientID": None,
    }


def test_spellings_of_one_name_count_together() -> None:
    statements = [
        said(2, patientName="Huber^Maria"),
        said(2, at=1, patientName="HUBER^MARIA"),
        said(3, at=9, patientName="Attacker^Eve"),
    ]
    assert resolve_demographics(statements)["patientName"] == "HUBER^MARIA"


def test_a_file_has_no_vote_on_what_it_does_not_say() -> None:
    statements = [
        said(9, patientID="P"),
        said(1, patientID="P", studyDescription="Thorax", accessionNumber="A"),
    ]
    study = resolve_study(statements)
    assert (study["studyDescription"], study["accessionNumber"]) == ("Thorax", "A")


def test_values_come_most_frequent_first() -> None:
    statements = [
        said(1, accessionNumber="B", patientName="X"),
        said(2, accessionNumber="A"),
        said(2, at=1, accessionNumber="B"),
        said(5),
    ]
    assert values_of(statements, "accessionNumber") == ["B", "A"]


def test_the_most_frequent_are_kept() -> None:
    many = [said(1, at=number, patientName=f"{number}") for number in range(1000)]
    kept = merge([*many, said(2, patientName="true")], ["patientName"])
    assert len(kept) == MAX_STATEMENTS
    assert kept[0].attributes == {"patientName": "true"}


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ({"patientName": "Huber^Maria"}, {"patientName": "HUBER^maria"}, False),
        ({"patientName": "Huber^Maria"}, {"patientName": "Huber^Maria=胡伯"}, False),
        ({"patientName": "Huber^Maria=胡伯"}, {"patientName": "Huber^Maria=鈴木"}, True),
        ({"patientName": "Huber  Maria"}, {"patientName": "Huber Maria"}, False),
        ({"patientName": "M\u00fcller"}, {"patientName": "Mu\u0308ller"}, False),
        ({"patientName": "Müller"}, {"patientName": "Muller"}, True),
        ({"patientName": "Huber"}, {}, False),
        ({"patientSex": "F"}, {"patientSex": "M"}, True),
        ({"patientSex": "F"}, {"patientSex": "f"}, False),
        ({"patientBirthDate": "1950-01-01"}, {"patientBirthDate": "1950-01-02"}, True),
        ({"issuerOfPatientID": "St Mary"}, {"issuerOfPatientID": "General"}, True),
        ({"issuerOfPatientID": "St Mary"}, {}, False),
    ],
)
def test_what_contradicts(one: dict[str, str], other: dict[str, str], *, expected: bool) -> None:
    assert are_contradictory([one, other]) is expected
    assert are_contradictory([other, {}, one, one]) is expected
