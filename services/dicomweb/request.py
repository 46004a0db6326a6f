"""What a search asks for (PS3.18 8.3.4, 10.6): from query parameters to filters of the index.

A search of series or instances begins at the studies too, so that every search has one place where
a principal's scope is applied, and one order: newest study first.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

from services.auth.scope import ALL, Scope
from services.dicomweb.attributes import Attribute, Level, answered, keyword_of
from services.errors import InvalidInput
from services.query.filters import StudyCriteria, study_filter
from services.query.visibility import MongoFilter, both, studies_within

LIMIT_MAX = 500
"""Results of one answer; more are asked for by `offset`."""

_OFFSET_MAX = 1_000_000
"""Beyond this MongoDB only counts for seconds: a narrower search finds it."""

_VALUE_MAX_CHARACTERS = 512
_WILDCARD_MAX_CHARACTERS = 64
"""Of a value with `*` or `?`, which becomes a regular expression: LO has 64 (PS3.5 6.2)."""

_WILDCARDS = re.compile(r"[*?]")
_NAME_SEPARATORS = re.compile(r"[\s^=,]+")
_VALUES_MAX = 500
_PARAMETER_MAX_CHARACTERS = 65 * _VALUES_MAX
"""So many UIDs, with what separates them."""
_INTEGER = re.compile(r"-?[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """A search.

    Attributes:
        level: What is searched for.
        studies: Filter of the studies, without the scope.
        series: Filter of their series.
        instances: Filter of their instances.
        attributes: What is answered of each result.
        limit: Most results.
        offset: Results to leave out.
        warnings: Sentences about what was asked for and is not done (PS3.18 8.3.4.2).
    """

    level: Level
    studies: MongoFilter
    series: MongoFilter
    instances: MongoFilter
    attributes: Sequence[Attribute]
    limit: int
    offset: int
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class _Filters:
    """Filters while they are collected."""

    criteria: StudyCriteria
    studies: tuple[MongoFilter, ...] = ()
    series: tuple[MongoFilter, ...] = ()
    instances: tuple[MongoFilter, ...] = ()


def parse_search(
    level: Level,
    parameters: Sequence[tuple[str, str]],
    *,
    study_uid: str | None = None,
    series_uid: str | None = None,
) -> SearchRequest:
    """Read the query parameters of a search.

    Args:
        level: What is searched for.
        parameters: Name and value of each, in their order.
        study_uid: Of the path.
        series_uid: Of the path.

    Raises:
        InvalidInput: An attribute can't be searched at this level, or a value makes no sense.
    """
    options = _Options()
    filters = _Filters(
        StudyCriteria(
            scope=ALL,
        )
    )
    seen: list[str] = []
    for name, value in parameters:
        if len(value) > _PARAMETER_MAX_CHARACTERS:
            raise InvalidInput(f"{name[:_WILDCARD_MAX_CHARACTERS]}: the value is too long.")
        if options.take(name, value):
            continue
        keyword = keyword_of(name) or name
        if keyword in seen:
            raise InvalidInput(f"{keyword[:_WILDCARD_MAX_CHARACTERS]} is given twice.")
        filters = _filtered(filters, level, keyword, value.strip())
        seen.append(keyword)
    criteria, studies, series = filters.criteria, filters.studies, filters.series
    if study_uid is not None:
        studies = (*studies, {"studyInstanceUID": study_uid})
    if series_uid is not None:
        series = (*series, {"seriesInstanceUID": series_uid})
    # Relational searches answer the attributes of the levels above that the path does not fix.
    above = [
        keyword
        for keyword, is_open in _ABOVE.items()
        if (is_open is Level.STUDY and study_uid is None)
        or (is_open is Level.SERIES and series_uid is None)
    ]
    return SearchRequest(
        level=level,
        studies=_all_of(study_filter(criteria), *studies),
        series=_all_of(*series),
        instances=_all_of(*filters.instances),
        attributes=answered(
            level, [*options.included, *seen, *above], has_all="all" in options.included
        ),
        limit=options.limit,
        offset=options.offset,
        warnings=options.warnings,
    )


@dataclass(slots=True)
class _Options:
    """Parameters that match nothing (PS3.18 8.3.4)."""

    included: list[str] = field(default_factory=list)
    limit: int = LIMIT_MAX
    offset: int = 0
    warnings: list[str] = field(default_factory=list)

    def take(self, name: str, value: str) -> bool:
        """Read a parameter; return whether it is one of these."""
        match name:
            case "includefield":
                self.included += [part.strip() for part in value.split(",")]
            case "limit":
                self.limit = min(LIMIT_MAX, _count(name, value))
            case "offset":
                self.offset = _count(name, value)
                if self.offset > _OFFSET_MAX:
                    raise InvalidInput(f"offset is at most {_OFFSET_MAX}.")
            case "fuzzymatching":
                if _is_true(name, value):
                    self.warnings.append(_NOT_FUZZY)
            case "accept":
                pass
            case _:
                return False
        return True


_NOT_FUZZY = (
    "The fuzzymatching parameter is not supported. Only literal matching has been performed."
)


_ABOVE = {
    "StudyDate": Level.STUDY,
    "StudyTime": Level.STUDY,
    "AccessionNumber": Level.STUDY,
    "ModalitiesInStudy": Level.STUDY,
    "ReferringPhysicianName": Level.STUDY,
    "PatientName": Level.STUDY,
    "PatientID": Level.STUDY,
    "PatientBirthDate": Level.STUDY,
    "PatientSex": Level.STUDY,
    "StudyID": Level.STUDY,
    "NumberOfStudyRelatedSeries": Level.STUDY,
    "NumberOfStudyRelatedInstances": Level.STUDY,
    "Modality": Level.SERIES,
    "SeriesNumber": Level.SERIES,
    "SeriesDescription": Level.SERIES,
    "NumberOfSeriesRelatedInstances": Level.SERIES,
}
"""Attributes of the parents that a search without them in its path answers (PS3.18 10.6.3.3)."""


def scoped(studies: MongoFilter, scope: Scope) -> MongoFilter:
    """Limit a filter of studies to a scope: the one place where searches meet it."""
    return both(studies_within(scope), studies)


def _filtered(filters: _Filters, level: Level, keyword: str, value: str) -> _Filters:
    """Add the filter of one parameter; an empty value matches everything (PS3.4 C.2.2.2.3)."""
    known = _FILTERS.get(keyword)
    if known is None or known[0] > level:
        can_be = ", ".join(name for name, (of, _) in _FILTERS.items() if of <= level)
        shown = keyword[:_WILDCARD_MAX_CHARACTERS]
        raise InvalidInput(f"{shown} can't be searched here. These can: {can_be}.")
    if not value or not value.strip("*"):
        return filters
    return known[1](filters, value)


def _patient_name(filters: _Filters, value: str) -> _Filters:
    """Match words by their beginnings, in any order, whatever stands around them."""
    words = [
        _WILDCARDS.split(word.lstrip("*?"), maxsplit=1)[0] for word in _NAME_SEPARATORS.split(value)
    ]
    text = " ".join(word for word in words if word)
    return replace(filters, criteria=replace(filters.criteria, patient_name=text or None))


def _patient_id(filters: _Filters, value: str) -> _Filters:
    if _WILDCARDS.search(value):
        return replace(filters, studies=(*filters.studies, *_wildcard("patientID", value)))
    return replace(filters, criteria=replace(filters.criteria, patient_id=value))


def _accession_number(filters: _Filters, value: str) -> _Filters:
    if _WILDCARDS.search(value):
        return replace(filters, studies=(*filters.studies, *_wildcard("accessionNumbers", value)))
    return replace(filters, criteria=replace(filters.criteria, accession_number=value))


def _study_description(filters: _Filters, value: str) -> _Filters:
    """Match words by their beginnings: those of the index, then those of the description alone."""
    _check_length("StudyDescription", value, _WILDCARD_MAX_CHARACTERS)
    words = [word for word in _WILDCARDS.sub(" ", value).split() if word]
    own = [{"studyDescription": {"$regex": re.escape(word), "$options": "i"}} for word in words[:8]]
    criteria = replace(filters.criteria, text=" ".join(words))
    return replace(filters, criteria=criteria, studies=(*filters.studies, *own))


def _study_uids(filters: _Filters, value: str) -> _Filters:
    uids = _list_of("StudyInstanceUID", value)
    return replace(filters, criteria=replace(filters.criteria, study_instance_uids=uids))


def _study_date(filters: _Filters, value: str) -> _Filters:
    first, is_range, last = value.partition("-")
    begin, end = _day(first), _day(last if is_range else first)
    if begin is None and end is None:
        return filters
    criteria = replace(filters.criteria, study_date_from=begin, study_date_to=end)
    return replace(filters, criteria=criteria)


def _modalities(filters: _Filters, value: str) -> _Filters:
    codes = _list_of("ModalitiesInStudy", value)
    return replace(filters, criteria=replace(filters.criteria, modalities=codes))


def _modality(filters: _Filters, value: str) -> _Filters:
    """Match series, and look into those studies alone that have one."""
    codes = [code for one in _list_of("Modality", value) for code in (one, one.upper())]
    found: MongoFilter = {"modality": {"$in": codes}}
    narrowed = {"modalitiesInStudy": {"$in": codes}}
    return replace(filters, studies=(*filters.studies, narrowed), series=(*filters.series, found))


def _of_series(field: str, keyword: str) -> Callable[[_Filters, str], _Filters]:
    def add(filters: _Filters, value: str) -> _Filters:
        found = {field: {"$in": _list_of(keyword, value)}}
        return replace(filters, series=(*filters.series, found))

    return add


def _of_instances(field: str, keyword: str) -> Callable[[_Filters, str], _Filters]:
    def add(filters: _Filters, value: str) -> _Filters:
        found = {field: {"$in": _list_of(keyword, value)}}
        return replace(filters, instances=(*filters.instances, found))

    return add


def _series_number(filters: _Filters, value: str) -> _Filters:
    found = {"seriesNumber": _integer("SeriesNumber", value)}
    return replace(filters, series=(*filters.series, found))


def _instance_number(filters: _Filters, value: str) -> _Filters:
    found = {"instanceNumber": _integer("InstanceNumber", value)}
    return replace(filters, instances=(*filters.instances, found))


_FILTERS: Mapping[str, tuple[Level, Callable[[_Filters, str], _Filters]]] = {
    "PatientName": (Level.STUDY, _patient_name),
    "PatientID": (Level.STUDY, _patient_id),
    "AccessionNumber": (Level.STUDY, _accession_number),
    "StudyDate": (Level.STUDY, _study_date),
    "ModalitiesInStudy": (Level.STUDY, _modalities),
    "StudyDescription": (Level.STUDY, _study_description),
    "StudyInstanceUID": (Level.STUDY, _study_uids),
    "Modality": (Level.SERIES, _modality),
    "SeriesInstanceUID": (Level.SERIES, _of_series("seriesInstanceUID", "SeriesInstanceUID")),
    "SeriesNumber": (Level.SERIES, _series_number),
    "SOPInstanceUID": (Level.INSTANCE, _of_instances("sopInstanceUID", "SOPInstanceUID")),
    "SOPClassUID": (Level.INSTANCE, _of_instances("sopClassUID", "SOPClassUID")),
    "InstanceNumber": (Level.INSTANCE, _instance_number),
}
"""What can be searched, at which level and below, and how."""


def _wildcard(field: str, value: str) -> list[MongoFilter]:
    """Match `*` and `?` (PS3.4 C.2.2.2.4).

    With a `*` in front, the words of the index are looked up first, for nothing else serves it:
    the value then has to begin a word of the text.
    """
    _check_length(field, value, _WILDCARD_MAX_CHARACTERS)
    parts = [
        {"*": ".*", "?": "."}.get(part, re.escape(part)) for part in re.split(r"([*?])", value)
    ]
    exact: MongoFilter = {field: {"$regex": f"^{''.join(parts)}$"}}
    if value[0] not in "*?":
        return [exact]
    words = " ".join(_WILDCARDS.sub(" ", value).split())
    if not words:
        return [exact]
    return [study_filter(StudyCriteria(scope=ALL, text=words)), exact]


def _list_of(keyword: str, value: str) -> list[str]:
    """Split a list of values at commas (PS3.18 8.3.4.1) or backslashes (PS3.4 C.2.2.2.2)."""
    values = [one.strip() for one in re.split(r"[,\\]", value) if one.strip()]
    if len(values) > _VALUES_MAX:
        raise InvalidInput(f"{keyword}: at most {_VALUES_MAX} values in one filter.")
    for one in values:
        _check_length(keyword, one, _VALUE_MAX_CHARACTERS)
    return values


def _day(text: str) -> date | None:
    text = text.strip()
    if not text:
        return None
    try:
        if len(text) == len("20000101") and text.isascii():
            return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007  # days have no zone
    except ValueError:
        pass
    raise InvalidInput("StudyDate: give YYYYMMDD, or a range such as 20260101-20261231.")


def _integer(keyword: str, value: str) -> int:
    if not _INTEGER.fullmatch(value):
        raise InvalidInput(f"{keyword} is an integer.")
    return int(value)


def _count(name: str, value: str) -> int:
    if not (value.isascii() and value.isdigit() and len(value) < 10):  # noqa: PLR2004  # 32 bits
        raise InvalidInput(f"{name} is an integer of 0 or more.")
    return int(value)


def _is_true(name: str, value: str) -> bool:
    if value not in {"true", "false"}:
        raise InvalidInput(f"{name} is true or false.")
    return value == "true"


def _check_length(name: str, value: str, most: int) -> None:
    if len(value) > most:
        raise InvalidInput(f"{name}: at most {most} characters.")


def _all_of(*parts: Any) -> MongoFilter:  # filters of MongoDB
    given = [part for part in parts if part]
    if len(given) <= 1:
        return given[0] if given else {}
    return {"$and": given}
