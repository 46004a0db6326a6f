"""Search the index for studies, series and instances (QIDO-RS, PS3.18 10.6)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from models import InstanceDocument, SeriesDocument, StudyDocument
from models.instance import INSTANCE_NUMBER_ORDER, instance_sort
from services.auth.scope import Scope
from services.database import readable, translated_database_faults
from services.dicomweb.attributes import Attribute, Fields, Level
from services.dicomweb.request import SearchRequest, scoped
from services.errors import AmbiguousStudy

_NEWEST_FIRST = {"orderStudyDate": -1, "_id": -1}
_SERIES_ORDER = {"seriesNumber": 1, "seriesInstanceUID": 1}

_JOINED_AT_ONCE = 1_000
"""Results in one answer of MongoDB: all of a search."""


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        results: The documents of each result by level, as far as they are answered; of the studies
            always `_id` and `orthancPatientId`.
        has_more: There are results beyond the limit.
    """

    results: Sequence[Mapping[Level, Fields]]
    has_more: bool


async def search(
    request: SearchRequest, scope: Scope, *, max_seconds: float, is_one_study: bool = False
) -> Found:
    """Search.

    Args:
        request: What is asked for.
        scope: Studies outside do not exist.
        max_seconds: Longest time that MongoDB may work on it.
        is_one_study: The path names a study: results of two patients' studies are refused.

    Raises:
        AmbiguousStudy: Two patients have a study of this UID.
        DatabaseUnavailable: MongoDB does not answer in time.
    """
    with translated_database_faults():
        cursor = await readable(StudyDocument.get_pymongo_collection()).aggregate(
            _pipeline(request, scope),
            batchSize=_JOINED_AT_ONCE,
            maxTimeMS=max(1, int(max_seconds * 1000)),
        )
        found = await cursor.to_list()
    if is_one_study and len({result["study"]["_id"] for result in found}) > 1:
        raise AmbiguousStudy
    return Found(
        [_by_level(result) for result in found[: request.limit]], len(found) > request.limit
    )


def _by_level(result: Mapping[str, Any]) -> Mapping[Level, Fields]:
    return {level: result[name] for level, name in _NAMES.items() if name in result}


_NAMES = {Level.STUDY: "study", Level.SERIES: "series", Level.INSTANCE: "instance"}


def _pipeline(request: SearchRequest, scope: Scope) -> list[Mapping[str, Any]]:
    """Plan one command; MongoDB reads no further than the page needs."""
    shown = {level: _shown(request.attributes, level) for level in Level}
    page: list[Mapping[str, Any]] = [{"$skip": request.offset}, {"$limit": request.limit + 1}]
    stages: list[Mapping[str, Any]] = [
        {"$match": scoped(request.studies, scope)},
        {"$sort": _NEWEST_FIRST},
    ]
    if request.level is Level.STUDY:
        stages += page
    stages.append({"$project": shown[Level.STUDY] | {"orthancPatientId": 1}})
    stages.append({"$project": {"study": "$$ROOT", "_id": 1}})
    if request.level > Level.STUDY:
        inner = _chosen(request.series, _SERIES_ORDER, shown[Level.SERIES])
        stages += _joined(SeriesDocument, "_id", "orthancStudyId", "series", inner)
    if request.level > Level.SERIES:
        inner = _chosen(
            request.instances, instance_sort(INSTANCE_NUMBER_ORDER), shown[Level.INSTANCE]
        )
        stages += _joined(InstanceDocument, "series._id", "orthancSeriesId", "instance", inner)
    return stages if request.level is Level.STUDY else [*stages, *page]


def _shown(attributes: Sequence[Attribute], level: Level) -> dict[str, Any]:
    return {attribute.field: 1 for attribute in attributes if attribute.level is level}


def _chosen(
    filter_: Mapping[str, Any], order: Mapping[str, int], shown: Mapping[str, int]
) -> list[Mapping[str, Any]]:
    matching: list[Mapping[str, Any]] = [{"$match": filter_}] if filter_ else []
    return [*matching, {"$sort": dict(order)}, {"$project": {"_id": 1, **shown}}]


def _joined(
    document: type[SeriesDocument | InstanceDocument],
    parent: str,
    field: str,
    name: str,
    inner: list[Mapping[str, Any]],
) -> list[Mapping[str, Any]]:
    """Join the children of what came so far; unwound, so that a parent may have over 16 MB."""
    return [
        {
            "$lookup": {
                "from": document.get_collection_name(),
                "localField": parent,
                "foreignField": field,
                "pipeline": inner,
                "as": name,
            }
        },
        {"$unwind": f"${name}"},
    ]
