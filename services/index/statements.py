"""What the files of a study or series say about it, and which of it counts.

The attributes of a parent are a function of the instances that are stored, and of nothing else:

- Who the patient is, is taken as a whole: the demographics that are in agreement with most
  instances, then with the instance that was indexed last. What these demographics leave out comes
  from others that do not contradict them. So no patient is put together from two people.
- Every other attribute has the value that most instances give it, then the one of the instance that
  was indexed last. A file that does not have an attribute has no vote on it: a dose report without
  a description does not take the description from its study.

A contradiction is flagged, and what the minority says is kept for search.
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
"""Kept of one series or study, the most frequent first: files that all differ must not make its
document outgrow what MongoDB holds."""


def _stored_names(model: type[StudyAttributes | SeriesAttributes | Demographics]) -> list[str]:
    return [contract_name(name) for name in model.model_fields]


DEMOGRAPHICS = _stored_names(Demographics)
STUDY_ATTRIBUTES = [name for name in _stored_names(StudyAttributes) if name not in DEMOGRAPHICS]
SERIES_ATTRIBUTES = _stored_names(SeriesAttributes)


@dataclass(frozen=True, slots=True)
class Statement:
    """What some instances say, all of them the same.

    Attributes:
        attributes: By stored names; what the files do not say is left out.
        instances: How many they are.
        latest: The newest `indexedAt` of them.
    """

    attributes: Fields
    instances: int
    latest: datetime


def merge(statements: Iterable[Statement], names: Collection[str]) -> list[Statement]:
    """Reduce statements to some attributes and add up those that are then the same.

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
    """Return who the patient is by most files, never mixed from two people."""
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
    # A stable sort: what has equal support stays in the order of `merge`.
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

    Names are compared without case, repeated spaces, and Unicode's several ways to write a letter,
    and only in the component groups (PS3.5 6.2.1) that both have. What is absent contradicts
    nothing.
    """
    distinct = {tuple(sorted(folded.items())): folded for folded in map(_folded, demographics)}
    return any(_contradict(one, other) for one, other in combinations(distinct.values(), 2))


def _voted(statements: Sequence[Statement], names: Iterable[str]) -> dict[str, Any]:
    return {name: next(iter(values_of(statements, name)), None) for name in names}


def _folded(demographics: Fields) -> dict[str, str]:
    """Return what is compared of demographics, by attribute and component group of the name."""
    name, *others = DEMOGRAPHICS
    folded = {other: comparable_text(demographics.get(other)) for other in others}
    for position, group in enumerate(comparable_groups(demographics.get(name))):
        folded[f"{name}{position}"] = group
    return {key: value for key, value in folded.items() if value}


def _contradict(one: dict[str, str], other: dict[str, str]) -> bool:
    return any(other.get(key, value) != value for key, value in one.items())
