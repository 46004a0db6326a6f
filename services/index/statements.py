"""The attributes of a study or series, decided from the headers of its files.

The attributes of a parent depend only on the instances that are stored:

- The patient's demographics are taken as a whole, so that they are never mixed from two people:
  the demographics that agree with most instances win; if several do, those of the instance that was
  indexed last. Attributes that they lack come from demographics that do not contradict them.
- Every other attribute has the value that most instances have; if several do, that of the instance
  that was indexed last. A file without the attribute does not count: a dose report without a
  description does not remove the description of its study.

Contradictions are flagged, and the values of the minority are kept for search.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import combinations
from typing import Any

from models.attributes import Demographics, SeriesAttributes, StudyAttributes
from models.names import contract_name
from services.dicom.person_names import comparable_groups
from services.dicom.values import comparable_text
from services.index.record import Fields

MAX_STATEMENTS = 64
"""Most statements that are kept for one series or study, the most frequent first. If all files
differed, the document would exceed the 16 MB that MongoDB allows."""


def _stored_names(model: type[StudyAttributes | SeriesAttributes | Demographics]) -> list[str]:
    return [contract_name(name) for name in model.model_fields]


DEMOGRAPHICS = _stored_names(Demographics)
STUDY_ATTRIBUTES = [name for name in _stored_names(StudyAttributes) if name not in DEMOGRAPHICS]
SERIES_ATTRIBUTES = _stored_names(SeriesAttributes)


@dataclass(frozen=True, slots=True)
class Statement:
    """Attributes that several instances have in common.

    Attributes:
        attributes: By stored names; absent attributes are left out.
        instances: The number of these instances.
        latest: Their newest `indexedAt`.
    """

    attributes: Fields
    instances: int
    latest: datetime


def merge(statements: Iterable[Statement], names: Collection[str]) -> list[Statement]:
    """Reduce statements to some attributes and combine those that are then equal.

    Returns:
        At most `MAX_STATEMENTS`, the most frequent first, then the latest.
    """
    merged: dict[tuple[tuple[str, Any], ...], Statement] = {}
    for one in statements:
        attributes = {name: one.attributes[name] for name in names if name in one.attributes}
        key = tuple(attributes.items())
        other = merged.get(key)
        merged[key] = Statement(
            attributes,
            one.instances + (other.instances if other else 0),
            max(one.latest, other.latest) if other else one.latest,
        )
    ordered = sorted(merged.items(), key=lambda item: str(item[0]))
    ordered.sort(key=lambda item: (item[1].instances, item[1].latest), reverse=True)
    return [statement for _, statement in ordered[:MAX_STATEMENTS]]


def resolve_study(statements: Sequence[Statement]) -> dict[str, Any]:
    """Return the attributes of a study; None where no file has one."""
    return {**resolve_demographics(statements), **_voted(statements, STUDY_ATTRIBUTES)}


def resolve_series(statements: Sequence[Statement]) -> dict[str, Any]:
    """Return the attributes of a series; None where no file has one."""
    return _voted(statements, SERIES_ATTRIBUTES)


def resolve_demographics(statements: Sequence[Statement]) -> dict[str, Any]:
    """Return the demographics that most files agree with, never mixed from two people."""
    candidates = merge(statements, DEMOGRAPHICS)
    folded = [_folded(one.attributes) for one in candidates]
    support = [
        sum(
            other.instances
            for other, others in zip(candidates, folded, strict=True)
            if not _contradict(own, others)
        )
        for own in folded
    ]
    # A stable sort: candidates with equal support stay in the order of `merge`.
    order = sorted(range(len(candidates)), key=lambda index: support[index], reverse=True)
    resolved: dict[str, Any] = {}
    for index in order:
        if not _contradict(folded[index], _folded(resolved)):
            resolved = {**candidates[index].attributes, **resolved}
    return {name: resolved.get(name) for name in DEMOGRAPHICS}


def values_of(statements: Sequence[Statement], name: str) -> list[Any]:
    """Return all values of one attribute, the most frequent first."""
    return [one.attributes[name] for one in merge(statements, [name]) if name in one.attributes]


def are_contradictory(demographics: Iterable[Fields]) -> bool:
    """Return whether some demographics can't be those of one person.

    Names are compared without regard to case, repeated spaces and Unicode normalization, and only
    in the component groups (PS3.5 6.2.1) that both have. An absent value contradicts nothing.
    """
    distinct = {tuple(sorted(folded.items())): folded for folded in map(_folded, demographics)}
    return any(_contradict(one, other) for one, other in combinations(distinct.values(), 2))


def _voted(statements: Sequence[Statement], names: Iterable[str]) -> dict[str, Any]:
    return {name: next(iter(values_of(statements, name)), None) for name in names}


def _folded(demographics: Fields) -> dict[str, str]:
    """Return the values to compare, by attribute and component group of the name."""
    name, *others = DEMOGRAPHICS
    folded = {other: comparable_text(demographics.get(other)) for other in others}
    for position, group in enumerate(comparable_groups(demographics.get(name))):
        folded[f"{name}{position}"] = group
    return {key: value for key, value in folded.items() if value}


def _contradict(one: dict[str, str], other: dict[str, str]) -> bool:
    return any(other.get(key, value) != value for key, value in one.items())
