from datetime import date

import pytest

from services.auth.scope import ALL, Scope
from services.errors import InvalidInput
from services.query.filters import PatientCriteria, StudyCriteria, patient_filter, study_filter


def test_nothing_asked_filters_nothing() -> None:
    assert study_filter(StudyCriteria(scope=ALL)) == {}
    assert patient_filter(PatientCriteria(scope=ALL, patient_name="  ")) == {}


def test_every_word_is_an_anchored_beginning_without_case_and_accents() -> None:
    assert patient_filter(PatientCriteria(scope=ALL, patient_name="Huber, Ánn*")) == {
        "$and": [{"nameWords": {"$regex": "^huber"}}, {"nameWords": {"$regex": "^ann"}}]
    }


def test_umlauts_are_looked_for_in_both_spellings() -> None:
    assert patient_filter(PatientCriteria(scope=ALL, patient_name="Müller")) == {
        "$or": [{"nameWords": {"$regex": "^muller"}}, {"nameWords": {"$regex": "^mueller"}}]
    }


def test_words_with_punctuation_are_looked_for_as_one_and_as_several() -> None:
    assert study_filter(StudyCriteria(scope=ALL, text="Anne-Marie")) == {
        "$or": [
            {"searchWords": {"$regex": "^annemarie"}},
            {"$and": [{"searchWords": {"$regex": "^anne"}}, {"searchWords": {"$regex": "^marie"}}]},
        ]
    }


def test_what_looks_like_a_regular_expression_is_text() -> None:
    criteria = StudyCriteria(scope=ALL, text="(a+)+$ .*")
    assert study_filter(criteria) == {"searchWords": {"$regex": "^a"}}


def test_a_word_that_can_not_be_stored_matches_nothing() -> None:
    assert study_filter(StudyCriteria(scope=ALL, text="***")) == {"searchWords": {"$in": []}}


def test_long_words_are_cut_where_stored_words_end() -> None:
    found = study_filter(StudyCriteria(scope=ALL, text="a" * 512))
    assert found == {"searchWords": {"$regex": "^" + "a" * 64}}


@pytest.mark.parametrize(
    ("criteria", "field"),
    [
        (StudyCriteria(scope=ALL, text="\ufdfa" * 513), "text"),
        (StudyCriteria(scope=ALL, patient_name="a" * 513), "patientName"),
        (StudyCriteria(scope=ALL, patient_id="a" * 513), "patientID"),
        (StudyCriteria(scope=ALL, accession_number="a" * 513), "accessionNumber"),
        (StudyCriteria(scope=ALL, study_instance_uids=["1" * 513]), "studyInstanceUIDs"),
        (StudyCriteria(scope=ALL, modalities=["a" * 513]), "modalities"),
    ],
)
def test_long_values_are_refused_before_they_are_normalised(
    criteria: StudyCriteria, field: str
) -> None:
    with pytest.raises(InvalidInput, match=f"^{field}: at most 512 characters"):
        study_filter(criteria)


@pytest.mark.parametrize(
    ("first", "last", "bounds"),
    [
        (date(2020, 1, 1), None, {"$gte": "2020-01-01"}),
        (None, date(2020, 1, 2), {"$gt": "", "$lte": "2020-01-02~"}),
        (date(2020, 1, 1), date(2020, 1, 1), {"$gte": "2020-01-01", "$lte": "2020-01-01~"}),
    ],
)
def test_a_range_of_days_holds_both_ends_and_no_study_without_date(
    first: date | None, last: date | None, bounds: dict[str, str]
) -> None:
    criteria = StudyCriteria(scope=ALL, study_date_from=first, study_date_to=last)
    assert study_filter(criteria) == {"orderStudyDate": bounds}


def test_modalities_are_found_however_they_are_written() -> None:
    criteria = StudyCriteria(scope=ALL, modalities=["ct", "CT", "MR"])
    assert study_filter(criteria) == {"modalitiesInStudy": {"$in": ["ct", "CT", "MR"]}}
    assert study_filter(StudyCriteria(scope=ALL, modalities=["mr"])) == {
        "modalitiesInStudy": {"$in": ["mr", "MR"]}
    }


def test_an_empty_list_matches_nothing() -> None:
    assert study_filter(StudyCriteria(scope=ALL, modalities=[])) == {
        "modalitiesInStudy": {"$in": []}
    }
    assert study_filter(StudyCriteria(scope=ALL, study_instance_uids=[])) == {
        "studyInstanceUID": {"$in": []}
    }


@pytest.mark.parametrize(
    "criteria",
    [
        StudyCriteria(scope=ALL, study_date_from=date(2020, 1, 2), study_date_to=date(2020, 1, 1)),
        StudyCriteria(scope=ALL, study_instance_uids=["1.2"] * 501),
        StudyCriteria(scope=ALL, modalities=["CT"] * 501),
    ],
)
def test_filters_that_make_no_sense_are_refused(criteria: StudyCriteria) -> None:
    with pytest.raises(InvalidInput):
        study_filter(criteria)


def test_a_scope_is_part_of_every_filter_of_studies() -> None:
    share = Scope(study_ids=frozenset({"b", "a"}))
    assert study_filter(StudyCriteria(scope=share)) == {"_id": {"$in": ["a", "b"]}}
    assert study_filter(StudyCriteria(scope=share, patient_id="P")) == {
        "$and": [{"_id": {"$in": ["a", "b"]}}, {"patientID": "P"}]
    }
    ward = Scope(labels=frozenset({"ward 3"}))
    assert study_filter(StudyCriteria(scope=ward)) == {"labels": {"$in": ["ward 3"]}}


def test_padding_of_a_patient_id_is_ignored() -> None:
    for asked in ("OVI", " OVI ", "\u00a0OVI\u200b"):
        assert study_filter(StudyCriteria(scope=ALL, patient_id=asked)) == {"patientID": "OVI"}
        assert patient_filter(PatientCriteria(scope=ALL, patient_id=asked)) == {"patientID": "OVI"}
