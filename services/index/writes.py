"""Write and delete instance documents, and tell which parents that touches."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, SeriesDocument, StudyDocument
from services.index.optimistic_locking import merged, new_version
from services.index.record import Fields, IndexRecord, instance_fields, series_fields, study_fields
from services.index.rollup import Attributes, Touched
from services.index.stored_state import StoredState

Database = AsyncDatabase[dict[str, Any]]
_PARENTS = ("orthancSeriesId", "orthancStudyId", "orthancPatientId")


@dataclass(frozen=True, slots=True)
class Parents:
    """Orthanc ids of the parents of some instances."""

    series: Collection[str]
    studies: Collection[str]
    patients: Collection[str]


async def upsert_instances(
    database: Database, entries: Sequence[IndexRecord], known: StoredState, now: datetime
) -> Touched:
    """Write instance documents; those that are there with the same revision keep `indexedAt`.

    Args:
        database: MongoDB.
        entries: When one instance comes twice, the last counts.
        known: What is stored of them.
        now: In UTC, with no more than milliseconds.

    Returns:
        The parents to roll up.
    """
    unique = list({entry.ids.instance: entry for entry in entries}.values())
    instances = database[InstanceDocument.Settings.name]
    news = {e.ids.instance for e in unique if known.revisions.get(e.ids.instance) != e.revision}
    requests = [_upsert(entry, now, is_news=entry.ids.instance in news) for entry in unique]
    result = await instances.bulk_write(requests, ordered=False)
    return plan_touched(
        unique, news, children_written=bool(result.upserted_count or result.modified_count)
    )


def plan_touched(
    entries: Sequence[IndexRecord], news: Collection[str], *, children_written: bool
) -> Touched:
    """Collect the parents of entries and what the entries say about them.

    Args:
        entries: Each instance once.
        news: Ids of the instances that are new or were replaced.
        children_written: Any instance document was changed.
    """
    return Touched(
        series={entry.ids.series for entry in entries},
        studies={entry.ids.study for entry in entries},
        patients={entry.ids.patient for entry in entries},
        children_written=children_written,
        series_attributes=_attributes(
            entries, news, lambda e: (e.ids.series, e.header.series), series_fields
        ),
        study_attributes=_attributes(
            entries, news, lambda e: (e.ids.study, e.header.patient, e.header.study), study_fields
        ),
    )


async def find_parents(database: Database, instance_ids: Sequence[str]) -> Parents:
    """Find the parents of instances."""
    condition = {"_id": {"$in": list(instance_ids)}}
    documents = [
        document
        async for document in database[InstanceDocument.Settings.name].find(condition, _PARENTS)
    ]
    return _parents(documents)


async def find_tree(database: Database, study_ids: Sequence[str]) -> Parents:
    """Find the series and patients that anything stored of some studies names."""
    below = {"orthancStudyId": {"$in": list(study_ids)}}
    instances = database[InstanceDocument.Settings.name].find(below, _PARENTS)
    series = database[SeriesDocument.Settings.name].find(below, _PARENTS)
    themselves = {"_id": {"$in": list(study_ids)}}
    studies = database[StudyDocument.Settings.name].find(themselves, _PARENTS)
    return _parents(
        [
            *[document async for document in instances],
            *[{**document, "orthancSeriesId": document["_id"]} async for document in series],
            *[{**document, "orthancStudyId": document["_id"]} async for document in studies],
        ]
    )


async def delete_instances(database: Database, instance_ids: Sequence[str]) -> int:
    """Delete instance documents and return how many there were."""
    condition = {"_id": {"$in": list(instance_ids)}}
    result = await database[InstanceDocument.Settings.name].delete_many(condition)
    return result.deleted_count


def _parents(documents: Sequence[Fields]) -> Parents:
    return Parents(
        series={d["orthancSeriesId"] for d in documents if "orthancSeriesId" in d},
        studies={d["orthancStudyId"] for d in documents},
        patients={d["orthancPatientId"] for d in documents},
    )


def _upsert(entry: IndexRecord, now: datetime, *, is_news: bool) -> UpdateOne:
    stamps: dict[str, Any] = {"indexedAt": now, "version": new_version()}
    fields = instance_fields(entry)
    on_insert: dict[str, Any] = {"useOrthancPreview": True}
    if is_news:
        fields |= stamps
    else:
        # It was there a moment ago; should it have been removed since, it comes back whole.
        on_insert |= stamps
    return UpdateOne(
        {"_id": entry.ids.instance}, {"$set": fields, "$setOnInsert": on_insert}, upsert=True
    )


def _attributes(
    entries: Sequence[IndexRecord],
    news: Collection[str],
    said_by: Callable[[IndexRecord], tuple[str, *tuple[object, ...]]],
    fields_of: Callable[[IndexRecord], Fields],
) -> dict[str, Attributes]:
    """Lay what the files of each parent say over each other; old files are heard without news.

    Args:
        entries: The files.
        news: Ids of the instances that are new or were replaced.
        said_by: Tells the id of a file's parent and all that the file says about it.
        fields_of: Writes that by stored names.
    """
    collected: dict[str, Attributes] = {}
    heard: dict[str, object] = {}
    for entry in sorted(entries, key=lambda entry: entry.ids.instance in news):
        said, is_news = said_by(entry), entry.ids.instance in news
        parent = said[0]
        if heard.get(parent) == (said, is_news):
            # Most files of a series say the same as the one before.
            continue
        heard[parent] = said, is_news
        before = collected.get(parent)
        if before is None or before.is_news != is_news:
            collected[parent] = Attributes(fields_of(entry), is_news)
        else:
            collected[parent] = Attributes(merged(fields_of(entry), before.fields), is_news)
    return collected
