from datetime import UTC, datetime
from typing import Any

import pytest

from models import ForwardingRuleDocument
from models.forwarding import StudyOrigin
from services.errors import InvalidInput
from services.modalities.forwarding import ForwardingRule, matches

NOW = datetime(2026, 1, 1, tzinfo=UTC)
STUDY = {
    "modalitiesInStudy": ["CT", "SR"],
    "labels": ["ward"],
    "studyDescription": "Schädel nativ [1]",
}


def rule(**criteria: Any) -> ForwardingRuleDocument:
    times: dict[str, Any] = dict.fromkeys(("created_at", "updated_at", "checked_until"), NOW)
    return ForwardingRuleDocument.model_construct(id="r", destination="ws", **times, **criteria)


@pytest.mark.parametrize(
    ("criteria", "expected"),
    [
        ({}, True),
        ({"modalities": ["MR", "SR"]}, True),
        ({"modalities": ["MR"]}, False),
        ({"labels": ["ward", "x"]}, True),
        ({"labels": ["x"]}, False),
        ({"calling_ae_titles": ["CT1"]}, True),
        ({"calling_ae_titles": ["MR1"]}, False),
        ({"study_description": "schadel*"}, True),
        ({"study_description": "*NATIV [1]"}, True),
        ({"study_description": "nativ"}, False),
        ({"modalities": ["CT"], "labels": ["x"]}, False),
        ({"origins": [StudyOrigin.ANONYMIZED]}, False),
    ],
)
def test_a_study_matches_when_each_criterion_does(criteria: dict[str, Any], expected: bool) -> None:
    assert matches(rule(**criteria), STUDY, {"CT1"}) is expected


def test_a_study_that_says_nothing_matches_no_criterion() -> None:
    assert matches(rule(), {}, ())
    assert not matches(rule(study_description="*x*"), {}, ())
    assert not matches(rule(calling_ae_titles=["CT1"]), {}, ())


GIVEN: dict[str, Any] = {
    "name": "r",
    "destination": "ws",
    "modalities": [" ct "],
    "calling_ae_titles": None,
    "labels": None,
    "study_description": " ",
    "commit": False,
}


def test_values_of_a_rule_are_cleaned() -> None:
    checked = ForwardingRule(**GIVEN).checked()
    assert checked.modalities == ["CT"]
    assert checked.study_description is None


@pytest.mark.parametrize(
    ("given", "argument"),
    [
        ({"name": "a b"}, "name"),
        ({"modalities": []}, "modalities"),
        ({"labels": ["x" * 129]}, "labels"),
        ({"calling_ae_titles": [" "]}, "callingAETitles"),
        ({"study_description": "x" * 129}, "studyDescription"),
        ({"origins": []}, "origins"),
    ],
)
def test_a_wrong_rule_names_its_argument(given: dict[str, Any], argument: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ForwardingRule(**GIVEN | given).checked()
    assert caught.value.argument == argument
