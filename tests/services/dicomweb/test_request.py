"""From query parameters to filters."""

import pytest

from services.auth.scope import Scope
from services.dicomweb.attributes import Level
from services.dicomweb.request import LIMIT_MAX, parse_search, scoped
from services.errors import InvalidInput

STUDY, SERIES, INSTANCE = Level.STUDY, Level.SERIES, Level.INSTANCE


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("PatientID", "7", {"patientID": "7"}),
        ("00100020", "7", {"patientID": "7"}),
        ("AccessionNumber", "A1", {"accessionNumbers": "A1"}),
        ("PatientName", "*doe*", {"nameWords": {"$regex": "^doe"}}),
        (
            "PatientName",
            "Doe^Jo?n",
            {"$and": [{"nameWords": {"$regex": "^doe"}}, {"nameWords": {"$regex": "^jo"}}]},
        ),
        ("PatientName", "*", {}),
        ("PatientName", "", {}),
        (
            "StudyDate",
            "20260102",
            {"orderStudyDate": {"$gte": "2026-01-02", "$lte": "2026-01-02~"}},
        ),
        ("StudyDate", "20260102-", {"orderStudyDate": {"$gte": "2026-01-02"}}),
        ("StudyDate", "-20260102", {"orderStudyDate": {"$lte": "2026-01-02~", "$gt": ""}}),
        ("ModalitiesInStudy", "CT,MR", {"modalitiesInStudy": {"$in": ["CT", "MR"]}}),
        ("StudyInstanceUID", "1.2\\1.3,1.4", {"studyInstanceUID": {"$in": ["1.2", "1.3", "1.4"]}}),
        ("PatientID", "7*", {"patientID": {"$regex": "^7.*$"}}),
        (
            "PatientID",
            "*7?",
            {"$and": [{"searchWords": {"$regex": "^7"}}, {"patientID": {"$regex": "^.*7.$"}}]},
        ),
        (
            "StudyDescription",
            "*Che.*",
            {
                "$and": [
                    {"searchWords": {"$regex": "^che"}},
                    {"studyDescription": {"$regex": "Che\\.", "$options": "i"}},
                ]
            },
        ),
    ],
)
def test_a_parameter_becomes_a_filter_of_studies(
    name: str, value: str, expected: dict[str, object]
) -> None:
    assert parse_search(STUDY, [(name, value)]).studies == expected


def test_filters_of_each_level_stand_apart() -> None:
    request = parse_search(
        INSTANCE,
        [("Modality", "ct"), ("SOPInstanceUID", "1.5"), ("InstanceNumber", "3")],
        study_uid="1.2",
        series_uid="1.3",
    )
    modality = {"$in": ["ct", "CT"]}
    assert request.studies == {
        "$and": [{"modalitiesInStudy": modality}, {"studyInstanceUID": "1.2"}]
    }
    assert request.series == {"$and": [{"modality": modality}, {"seriesInstanceUID": "1.3"}]}
    assert request.instances == {
        "$and": [{"sopInstanceUID": {"$in": ["1.5"]}}, {"instanceNumber": 3}]
    }


@pytest.mark.parametrize(
    ("level", "name", "value"),
    [
        (STUDY, "Nonsense", "1"),
        (STUDY, "00189999", "1"),
        (STUDY, "PatientWeight", "70"),
        (STUDY, "Modality", "CT"),
        (SERIES, "SOPInstanceUID", "1.2"),
        (STUDY, "StudyDate", "2026"),
        (STUDY, "StudyDate", "20261301"),
        (STUDY, "StudyDate", "20260201-20260101"),
        (STUDY, "limit", "-1"),
        (STUDY, "limit", "1e3"),
        (STUDY, "offset", "9" * 9),
        (STUDY, "fuzzymatching", "yes"),
        (STUDY, "PatientID", "*" + "7" * 64),
        (STUDY, "PatientName", "\ufdfa" * 600),
        (STUDY, "StudyInstanceUID", ",".join(["1.2"] * 501)),
        (SERIES, "SeriesNumber", "one"),
    ],
)
def test_what_makes_no_sense_is_refused(level: Level, name: str, value: str) -> None:
    with pytest.raises(InvalidInput):
        parse_search(level, [(name, value)])


def test_an_attribute_is_given_once_by_keyword_or_tag() -> None:
    with pytest.raises(InvalidInput):
        parse_search(STUDY, [("PatientID", "1"), ("00100020", "2")])


def test_the_limit_is_capped_and_fuzzy_matching_is_told_not_to_happen() -> None:
    request = parse_search(STUDY, [("limit", "10000"), ("fuzzymatching", "true")])
    assert request.limit == LIMIT_MAX
    assert request.warnings == [
        "The fuzzymatching parameter is not supported. Only literal matching has been performed."
    ]


def test_required_attributes_are_answered_and_others_when_asked_for() -> None:
    def keywords(level: Level, *parameters: tuple[str, str], **path: str) -> set[str]:
        return {one.keyword for one in parse_search(level, parameters, **path).attributes}

    usual = keywords(STUDY)
    assert "StudyDescription" not in usual
    asked = [("includefield", "00081030,Nonsense"), ("includefield", "InstitutionName")]
    assert keywords(STUDY, *asked) == usual | {"StudyDescription", "InstitutionName"}
    assert keywords(STUDY, ("includefield", "all")) > usual
    below = keywords(SERIES, study_uid="1.2")
    assert "PatientName" not in below
    assert {"StudyInstanceUID", "SeriesInstanceUID", "Modality"} <= below
    assert usual <= keywords(SERIES)
    assert keywords(SERIES, ("PatientName", "x"), study_uid="1.2") == below | {"PatientName"}


def test_a_scope_limits_every_search() -> None:
    assert scoped({"patientID": "7"}, Scope()) == {"patientID": "7"}
    limited = scoped({"patientID": "7"}, Scope(frozenset({"b", "a"})))
    assert limited == {"$and": [{"_id": {"$in": ["a", "b"]}}, {"patientID": "7"}]}
    assert scoped({}, Scope(frozenset())) == {"_id": {"$in": []}}
