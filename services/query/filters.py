"""Plans MongoDB filters from the criteria of a caller; an index serves every part."""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime

from models import SeriesDocument, StudyDocument
from models.names import contract_name
from models.stored import stored_name
from models.study import facet
from services.auth.scope import Scope
from services.dicom.search_words import QueryTerm, fold, query_terms
from services.dicom.values import clean_identifier
from services.errors import InvalidInput
from services.query.visibility import MongoFilter, both, studies_within

_BODY_PART_EXAMINED = stored_name(SeriesDocument.body_part_examined)
_ACCESSION_NUMBERS = stored_name(StudyDocument.accession_numbers)
_INSTITUTION_NAME = stored_name(StudyDocument.institution_name)
_MODALITIES_IN_STUDY = stored_name(StudyDocument.modalities_in_study)
_NAME_WORDS = stored_name(StudyDocument.name_words)
_ORDER_STUDY_DATE = stored_name(StudyDocument.order_study_date)
_ORTHANC_PATIENT_ID = stored_name(StudyDocument.orthanc_patient_id)
_PATIENT_BIRTH_DATE = stored_name(StudyDocument.patient_birth_date)
_PATIENT_ID = stored_name(StudyDocument.patient_id)
_PATIENT_SEX = stored_name(StudyDocument.patient_sex)
_REFERRING_PHYSICIAN_NAME = stored_name(StudyDocument.referring_physician_name)
_SEARCH_WORDS = stored_name(StudyDocument.search_words)
_STUDY_DESCRIPTION = stored_name(StudyDocument.study_description)
_STUDY_INSTANCE_UID = stored_name(StudyDocument.study_instance_uid)
_UPDATED_AT = stored_name(StudyDocument.updated_at)


_MOST_TERMS = 8
"""Most search terms of one text: each is another condition on every candidate."""

_MOST_CHARACTERS = 512
"""Longest value: no DICOM value that is searched has more than 324 characters (PN, PS3.5 6.2)."""

_MOST_VALUES = 500
"""Most values in one list: with more of them, several queries are faster than one filter."""

_MOST_WHERE_TERMS = 64
"""Most terms of one `where`: MongoDB plans each with all indexes that may serve it."""

_WHERE_DEPTH = 8
"""Most levels of nested terms in one `where`."""

_NOTHING: MongoFilter = {"_id": {"$in": []}}

_AFTER_EVERY_TIME = "~"
"""Sorts after `T` and all digits: the end of a day in `orderStudyDate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyCriteria:
    """Criteria of studies; all given criteria must match.

    Attributes:
        scope: Of the caller.
        labels: Any of these; those outside the scope match nothing. An empty list matches
            everything.
        without_labels: Whether there is no label that the caller may see.
        patient_id: Exact PatientID, with or without padding.
        patient_name: Prefixes of words of the name, in any order.
        accession_number: Exact AccessionNumber.
        study_instance_uids: Any of these; an empty list matches nothing.
        study_date_from: First day, inclusive.
        study_date_to: Last day, inclusive.
        modalities: Any of these, ignoring case; an empty list matches nothing.
        text: Prefixes of words of name, PatientID, AccessionNumber or description.
        updated_since: Changed then or later.
        patient_sex: Exact PatientSex, ignoring case.
        birth_date_from: First PatientBirthDate, inclusive.
        birth_date_to: Last PatientBirthDate, inclusive.
        study_description: Prefixes of words of the description.
        referring_physician_name: Prefixes of words of the name.
        institution_name: Prefixes of words of the name.
        body_part_examined: Exact BodyPartExamined of a series, ignoring case.
        has_frames: Whether there is a frame that can be shown.
        orthanc_patient_id: Orthanc's identifier of the patient.
        where: An expression that must match as well.
    """

    scope: Scope
    labels: Sequence[str] | None = None
    without_labels: bool | None = None
    patient_id: str | None = None
    patient_name: str | None = None
    accession_number: str | None = None
    study_instance_uids: Sequence[str] | None = None
    study_date_from: date | None = None
    study_date_to: date | None = None
    modalities: Sequence[str] | None = None
    text: str | None = None
    updated_since: datetime | None = None
    patient_sex: str | None = None
    birth_date_from: date | None = None
    birth_date_to: date | None = None
    study_description: str | None = None
    referring_physician_name: str | None = None
    institution_name: str | None = None
    body_part_examined: str | None = None
    has_frames: bool | None = None
    orthanc_patient_id: str | None = None
    where: "StudyExpression | None" = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyExpression:
    """A combination of criteria; all given parts must match.

    Attributes:
        all_of: Each of these must match.
        any_of: At least one of these must match; an empty list matches nothing.
        none_of: This must not match.
        matches: These criteria must match; their scope is that of the list.
    """

    all_of: Sequence["StudyExpression"] | None = None
    any_of: Sequence["StudyExpression"] | None = None
    none_of: "StudyExpression | None" = None
    matches: StudyCriteria | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PatientCriteria:
    """Criteria of patients: `scope` is the caller's, the others as in `StudyCriteria`."""

    scope: Scope
    patient_id: str | None = None
    patient_name: str | None = None


def study_filter(criteria: StudyCriteria) -> MongoFilter:
    """Plan the MongoDB filter of a study list, within its scope.

    Raises:
        InvalidInput: There are too many values, or a range ends before it begins.
    """
    parts = [
        studies_within(criteria.scope),
        _labels(criteria.labels, criteria.scope),
        _without_labels(criteria.without_labels, criteria.scope),
        _patient_id(criteria.patient_id),
        _exact(_ACCESSION_NUMBERS, criteria.accession_number),
        _any_uid(criteria.study_instance_uids),
        _any_modality(criteria.modalities),
        _days(criteria.study_date_from, criteria.study_date_to),
        _birth_days(criteria.birth_date_from, criteria.birth_date_to),
        _facet(_PATIENT_SEX, criteria.patient_sex),
        _facet(_BODY_PART_EXAMINED, criteria.body_part_examined),
        {} if criteria.has_frames is None else _facet("hasFrames", str(criteria.has_frames)),
        _exact(_ORTHANC_PATIENT_ID, criteria.orthanc_patient_id),
        {} if criteria.updated_since is None else {_UPDATED_AT: {"$gte": criteria.updated_since}},
    ]
    return both(
        *parts,
        *_words(_NAME_WORDS, criteria.patient_name),
        *_words(_SEARCH_WORDS, criteria.text),
        *_facet_words(_STUDY_DESCRIPTION, criteria.study_description),
        *_facet_words(_REFERRING_PHYSICIAN_NAME, criteria.referring_physician_name),
        *_facet_words(_INSTITUTION_NAME, criteria.institution_name),
        {} if criteria.where is None else _expression(criteria.where),
    )


def patient_filter(criteria: PatientCriteria) -> MongoFilter:
    """Plan the MongoDB filter of a patient list; its scope is applied to the studies below."""
    return both(_patient_id(criteria.patient_id), *_words(_NAME_WORDS, criteria.patient_name))


def _expression(where: StudyExpression) -> MongoFilter:
    """Plan an expression.

    Raises:
        InvalidInput: It has too many terms or levels.
    """
    if _count_terms(where, 1) > _MOST_WHERE_TERMS:
        raise InvalidInput(f"where: at most {_MOST_WHERE_TERMS} terms.")
    return _combined(where)


def _count_terms(where: StudyExpression, depth: int) -> int:
    if depth > _WHERE_DEPTH:
        raise InvalidInput(f"where: at most {_WHERE_DEPTH} levels of nested terms.")
    inner = [*(where.all_of or ()), *(where.any_of or ())]
    if where.none_of is not None:
        inner.append(where.none_of)
    return 1 + sum(_count_terms(one, depth + 1) for one in inner)


def _combined(where: StudyExpression) -> MongoFilter:
    return both(
        {} if where.matches is None else study_filter(where.matches),
        *map(_combined, where.all_of or ()),
        {} if where.any_of is None else _either([_combined(one) for one in where.any_of]),
        {} if where.none_of is None else _neither(_combined(where.none_of)),
    )


def _either(filters: Sequence[MongoFilter]) -> MongoFilter:
    if not filters:
        return _NOTHING
    # An empty filter matches every study.
    return {"$or": list(filters)} if all(filters) else {}


def _neither(filter_: MongoFilter) -> MongoFilter:
    return {"$nor": [filter_]} if filter_ else _NOTHING


def _labels(asked: Sequence[str] | None, scope: Scope) -> MongoFilter:
    if not asked:
        return {}
    _check_count("labels", asked)
    return _any_of("labels", scope.visible_labels(asked))


def _without_labels(without: bool | None, scope: Scope) -> MongoFilter:  # noqa: FBT001  # tri-state
    """Plan `without_labels`: limited callers see studies with one of their labels, shares none."""
    if without is None:
        return {}
    if scope.is_all:
        return {"labels": {"$in": [None, []]} if without else {"$gt": ""}}
    has_visible = scope.study_ids is None
    return {} if without is not has_visible else _NOTHING


def _exact(field: str, value: str | None) -> MongoFilter:
    _check_length(field, value or "")
    return {} if value is None else {field: value}


def _patient_id(value: str | None) -> MongoFilter:
    # Check the length first, because cleaning processes every character.
    _exact(_PATIENT_ID, value)
    return _exact(_PATIENT_ID, None if value is None else clean_identifier(value))


def _any_of(field: str, values: Collection[str]) -> MongoFilter:
    return {field: {"$in": list(values)}}


def _any_uid(asked: Sequence[str] | None) -> MongoFilter:
    if asked is None:
        return {}
    _check_count(_STUDY_INSTANCE_UID, asked)
    return _any_of(_STUDY_INSTANCE_UID, asked)


def _check_count(field: str, values: Sequence[str]) -> None:
    if len(values) > _MOST_VALUES:
        argument = _ARGUMENTS.get(field, field)
        message = f"{argument}: at most {_MOST_VALUES} values in one filter."
        raise InvalidInput(message, argument=f"filter.{argument}")
    for value in values:
        _check_length(field, value)


def _check_length(field: str, value: str) -> None:
    if len(value) > _MOST_CHARACTERS:
        argument = _ARGUMENTS.get(field, field)
        message = f"{argument}: at most {_MOST_CHARACTERS} characters."
        raise InvalidInput(message, argument=f"filter.{argument}")


_ARGUMENTS = {
    _ACCESSION_NUMBERS: contract_name("accession_number"),
    _MODALITIES_IN_STUDY: "modalities",
    _NAME_WORDS: contract_name("patient_name"),
    _SEARCH_WORDS: "text",
    _STUDY_INSTANCE_UID: contract_name("study_instance_uids"),
}
"""Names of arguments that differ from the stored field."""


def _any_modality(asked: Sequence[str] | None) -> MongoFilter:
    """Match upper case (PS3.5 6.2), and the given case for files that violate the standard."""
    if asked is None:
        return {}
    field = _MODALITIES_IN_STUDY
    _check_count(field, asked)
    return _any_of(field, dict.fromkeys(code for one in asked for code in (one, one.upper())))


def _days(first: date | None, last: date | None) -> MongoFilter:
    if first is not None and last is not None and last < first:
        raise InvalidInput("studyDate: `to` is before `from`.", argument="filter.studyDate")
    bounds = {}
    if first is not None:
        bounds["$gte"] = first.isoformat()
    if last is not None:
        bounds["$lte"] = last.isoformat() + _AFTER_EVERY_TIME
    if bounds and first is None:
        # "" means "no date", which is in no range.
        bounds["$gt"] = ""
    return {_ORDER_STUDY_DATE: bounds} if bounds else {}


def _birth_days(first: date | None, last: date | None) -> MongoFilter:
    if first is not None and last is not None and last < first:
        raise InvalidInput("patientBirthDate: `to` is before `from`.")
    bounds = {}
    if first is not None:
        bounds["$gte"] = first.isoformat()
    if last is not None:
        bounds["$lte"] = last.isoformat()
    return {_PATIENT_BIRTH_DATE: bounds} if bounds else {}


def _facet(attribute: str, value: str | None) -> MongoFilter:
    _check_length(attribute, value or "")
    return {} if value is None else {"facets": facet(attribute, fold(value))}


def _facet_words(attribute: str, text: str | None) -> list[MongoFilter]:
    return _words("facets", text, attribute)


def _words(field: str, text: str | None, attribute: str | None = None) -> list[MongoFilter]:
    """Return one condition for each term, anchored and escaped, so that an index serves it."""
    if text is None or not text.strip():
        return []
    # Before normalization, in which U+FDFA becomes 18 characters.
    _check_length(attribute or field, text)
    terms = query_terms(text)[:_MOST_TERMS]
    if not terms:
        # The text is only punctuation, which no word contains.
        return [{field: {"$in": []}}]
    prefix = "" if attribute is None else facet(attribute, "")
    return [_term(field, prefix, term) for term in terms]


def _term(field: str, prefix: str, term: QueryTerm) -> MongoFilter:
    alternatives = [
        both(*({field: {"$regex": f"^{prefix}{re.escape(word)}"}} for word in words))
        for words in term.alternatives
    ]
    return alternatives[0] if len(alternatives) == 1 else {"$or": alternatives}
