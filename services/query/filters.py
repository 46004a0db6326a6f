"""From what a caller filters by to a MongoDB filter; every part is served by an index."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from services.auth.scope import Scope
from services.dicom.search_words import QueryTerm, query_terms
from services.dicom.values import clean_identifier
from services.errors import InvalidInput
from services.query.visibility import MongoFilter, both, studies_within

_MOST_TERMS = 8
"""Terms of one text that are looked for: each is one more condition on every candidate."""

_MOST_CHARACTERS = 512
"""Of one value: no DICOM value that is searched has more than 324 (PN, PS3.5 6.2)."""

_MOST_VALUES = 500
"""Values in one list: more make a filter slower than several queries."""

_AFTER_EVERY_TIME = "~"
"""Sorts behind `T` and all digits: the end of a day in `orderStudyDate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCriteria:
    """What studies must match; all parts that are given.

    Attributes:
        scope: Of the caller.
        patient_id: Exact PatientID, with or without padding.
        patient_name: Beginnings of words of the name, in any order.
        accession_number: Exact AccessionNumber.
        study_instance_uids: Any of these; an empty list matches nothing.
        study_date_from: First day, inclusive.
        study_date_to: Last day, inclusive.
        modalities: Any of these, in whatever case; an empty list matches everything.
        text: Beginnings of words of name, PatientID, AccessionNumber or description.
        updated_since: Changed then or later.
    """

    scope: Scope
    patient_id: str | None = None
    patient_name: str | None = None
    accession_number: str | None = None
    study_instance_uids: Sequence[str] | None = None
    study_date_from: date | None = None
    study_date_to: date | None = None
    modalities: Sequence[str] | None = None
    text: str | None = None
    updated_since: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientCriteria:
    """What patients must match: `scope` is the caller's, the rest as in `StudyCriteria`."""

    scope: Scope
    patient_id: str | None = None
    patient_name: str | None = None


def study_filter(criteria: StudyCriteria) -> MongoFilter:
    """Plan the MongoDB filter of a study list, within its scope.

    Raises:
        InvalidInput: Too many values, or a range that ends before it begins.
    """
    parts = [
        studies_within(criteria.scope),
        _patient_id(criteria.patient_id),
        _exact("accessionNumbers", criteria.accession_number),
        _any_uid(criteria.study_instance_uids),
        _any_modality(criteria.modalities),
        _days(criteria.study_date_from, criteria.study_date_to),
        {} if criteria.updated_since is None else {"updatedAt": {"$gte": criteria.updated_since}},
    ]
    return both(
        *parts, *_words("nameWords", criteria.patient_name), *_words("searchWords", criteria.text)
    )


def patient_filter(criteria: PatientCriteria) -> MongoFilter:
    """Plan the MongoDB filter of a patient list; its scope is applied to the studies below."""
    return both(_patient_id(criteria.patient_id), *_words("nameWords", criteria.patient_name))


def _exact(field: str, value: str | None) -> MongoFilter:
    _check_length(field, value or "")
    return {} if value is None else {field: value}


def _patient_id(value: str | None) -> MongoFilter:
    # The length is checked first: cleaning works on every character.
    _exact("patientID", value)
    return _exact("patientID", None if value is None else clean_identifier(value))


def _any_of(field: str, values: Collection[str]) -> MongoFilter:
    return {field: {"$in": list(values)}}


def _any_uid(asked: Sequence[str] | None) -> MongoFilter:
    if asked is None:
        return {}
    _check_count("studyInstanceUID", asked)
    return _any_of("studyInstanceUID", asked)


def _check_count(field: str, values: Sequence[str]) -> None:
    if len(values) > _MOST_VALUES:
        raise InvalidInput(f"{field}: at most {_MOST_VALUES} values in one filter.")
    for value in values:
        _check_length(field, value)


def _check_length(field: str, value: str) -> None:
    if len(value) > _MOST_CHARACTERS:
        argument = _ARGUMENTS.get(field, field)
        raise InvalidInput(f"{argument}: at most {_MOST_CHARACTERS} characters.")


_ARGUMENTS = {
    "accessionNumbers": "accessionNumber",
    "modalitiesInStudy": "modalities",
    "nameWords": "patientName",
    "searchWords": "text",
    "studyInstanceUID": "studyInstanceUIDs",
}
"""What callers know stored fields by, where the names differ."""


def _any_modality(asked: Sequence[str] | None) -> MongoFilter:
    """Code strings are upper case (PS3.5 6.2); a file that breaks the rule is found by its own."""
    if not asked:
        return {}
    field = "modalitiesInStudy"
    _check_count(field, asked)
    return _any_of(field, dict.fromkeys(code for one in asked for code in (one, one.upper())))


def _days(first: date | None, last: date | None) -> MongoFilter:
    if first is not None and last is not None and last < first:
        raise InvalidInput("studyDate: `to` lies before `from`.")
    bounds = {}
    if first is not None:
        bounds["$gte"] = first.isoformat()
    if last is not None:
        bounds["$lte"] = last.isoformat() + _AFTER_EVERY_TIME
    if bounds and first is None:
        # "" stands for "no date", which lies in no range.
        bounds["$gt"] = ""
    return {"orderStudyDate": bounds} if bounds else {}


def _words(field: str, text: str | None) -> list[MongoFilter]:
    """Return one condition a term; anchored and escaped, so that each is a range of the index."""
    if text is None or not text.strip():
        return []
    # Before it is normalised: U+FDFA becomes 18 characters.
    _check_length(field, text)
    terms = query_terms(text)[:_MOST_TERMS]
    if not terms:
        # Only punctuation was asked for, and no word consists of it.
        return [{field: {"$in": []}}]
    return [_term(field, term) for term in terms]


def _term(field: str, term: QueryTerm) -> MongoFilter:
    alternatives = [
        both(*({field: {"$regex": f"^{re.escape(word)}"}} for word in words))
        for words in term.alternatives
    ]
    return alternatives[0] if len(alternatives) == 1 else {"$or": alternatives}
