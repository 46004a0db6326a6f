import json

import pytest
from pydantic import ValidationError

from services.labels.rules import labels_for
from services.settings import LabelRule, Settings

RULES = [
    LabelRule(label="ward-3", callingAETitle="CT1"),
    LabelRule(label="clinic-b", institutionName="Clinic B", issuerOfPatientID="B"),
    LabelRule(label="ward-3", institutionName="Ward"),
    LabelRule(label="b", issuerOfPatientID="B"),
]


@pytest.mark.parametrize(
    ("found", "labels"),
    [
        (("CT1", None, None), ["ward-3"]),
        (("CT1 ", "Ward", ""), ["ward-3"]),
        ((None, " Clinic B", "B"), ["clinic-b", "b"]),
        ((None, "Clinic B", None), []),
        (("ct1", "clinic b", None), []),
        ((None, None, None), []),
    ],
)
def test_all_conditions_of_a_rule_must_match(
    found: tuple[str | None, ...], labels: list[str]
) -> None:
    sender, institution, issuer = found
    assert (
        labels_for(
            RULES,
            calling_ae_title=sender,
            institution_name=institution,
            issuer_of_patient_id=issuer,
        )
        == labels
    )


def test_rules_are_read_from_the_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABEL_RULES", json.dumps([{"label": "x", "callingAETitle": "A"}]))
    assert Settings(_env_file=None).label_rules == [LabelRule(label="x", callingAETitle="A")]


@pytest.mark.parametrize(
    "rule",
    [
        {"label": "x"},
        {"label": "", "callingAETitle": "A"},
        {"label": " x", "callingAETitle": "A"},
        {"label": "x" * 65, "callingAETitle": "A"},
        {"label": "x", "callingAeTitle": "A"},
        {"label": "x", "callingAETitle": ""},
    ],
)
def test_a_rule_that_says_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, rule: dict[str, str]
) -> None:
    monkeypatch.setenv("LABEL_RULES", json.dumps([rule]))
    with pytest.raises(ValidationError):
        Settings(_env_file=None)
