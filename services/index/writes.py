"""Write and delete instance documents, and find the parents that have to be rolled up."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Self

from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, SeriesDocument, StudyDocument
from models.stored import stored_name
from services.index.optimistic_locking import new_version
from services.index.record import INDEX_VERSION, Fields, IndexRecord, instance_fields
from services.index.stored_state import StoredState

_INDEXED_AT = stored_name(InstanceDocument.indexed_at)
_INDEX_VERSION_FIELD = stored_name(InstanceDocument.index_version)
_ORTHANC_PATIENT_ID = stored_name(InstanceDocument.orthanc_patient_id)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_USE_ORTHANC_PREVIEW = stored_name(InstanceDocument.use_orthanc_preview)


Database = AsyncDatabase[dict[str, Any]]
_LINEAGE = {
    "_id": {
        "series": f"${_ORTHANC_SERIES_ID}",
        "study": f"${_ORTHANC_STUDY_ID}",
        "patient": f"${_ORTHANC_PATIENT_ID}",
    }
}


@dataclass(frozen=True, slots=True)
class Lineage:
    """A study with its patient and one of its series, by Orthanc's ids.

    Attributes:
        series: None for a study document without series.
    """

    series: str | None
    study: str
    patient: str


@dataclass(frozen=True, slots=True)
class Parents:
    """Orthanc ids of the parents of some instances."""

    series: Collection[str]
    studies: Collection[str]
    patients: Collection[str]

    @classmethod
    def of(cls, lineages: Iterable[Lineage]) -> Self:
        """Collect the parents of lineages."""
        known = set(lineages)
        return cls(
            series={one.series for one in known if one.series is not None},
            studies={one.study for one in known},
            patients={one.patient for one in known},
        )


@dataclass(frozen=True, slots=True)
class UpsertedInstances:
    """The effect of writing instances.

    Attributes:
        lineages: Of the instances.
        is_changed: At least one instance document changed.
        replaced: Ids of the instances that had another revision before, or that another version of
            the code had indexed.
    """

    lineages: Collection[Lineage]
    is_changed: bool
    replaced: Sequence[str]


async def upsert_instances(
    database: Database, entries: Sequence[IndexRecord], known: StoredState, now: datetime
) -> UpsertedInstances:
    """Write instance documents; those that are stored with the same revision keep `indexedAt`.

    Args:
        database: MongoDB.
        entries: If an instance occurs twice, the last entry is written.
        known: The stored state of the instances.
        now: In UTC, with no more than milliseconds.
    """
    unique = list({entry.ids.instance: entry for entry in entries}.values())
    instances = database[InstanceDocument.Settings.name]
    before = {id_: document.get("revision") for id_, document in known.instances.items()}
    requests = [
        _upsert(entry, now, is_news=before.get(entry.ids.instance) != entry.revision)
        for entry in unique
    ]
    result = await instances.bulk_write(requests, ordered=False)
    return UpsertedInstances(
        {Lineage(entry.ids.series, entry.ids.study, entry.ids.patient) for entry in unique},
        is_changed=bool(result.upserted_count or result.modified_count),
        replaced=[
            entry.ids.instance
            for entry in unique
            if (stored := known.instances.get(entry.ids.instance)) is not None
            and (stored.get("revision"), stored.get(_INDEX_VERSION_FIELD))
            != (entry.revision, INDEX_VERSION)
        ],
    )


async def find_parents(database: Database, instance_ids: Sequence[str]) -> Parents:
    """Find the parents of instances."""
    return Parents.of(await _lineages(database, {"_id": {"$in": list(instance_ids)}}))


async def find_lineages(database: Database, study_ids: Sequence[str]) -> set[Lineage]:
    """Find the series and patients that stored instances, series and studies refer to."""
    below = {_ORTHANC_STUDY_ID: {"$in": list(study_ids)}}
    instances = await _lineages(database, below)
    series = database[SeriesDocument.Settings.name].find(
        below, (_ORTHANC_STUDY_ID, _ORTHANC_PATIENT_ID)
    )
    return {
        *instances,
        *[
            Lineage(one["_id"], one[_ORTHANC_STUDY_ID], one[_ORTHANC_PATIENT_ID])
            async for one in series
        ],
        *await find_patients(database, study_ids),
    }


async def find_patients(database: Database, study_ids: Sequence[str]) -> set[Lineage]:
    """Find the patients of some studies; their series are left out."""
    condition = {"_id": {"$in": list(study_ids)}}
    studies = database[StudyDocument.Settings.name].find(condition, (_ORTHANC_PATIENT_ID,))
    return {Lineage(None, one["_id"], one[_ORTHANC_PATIENT_ID]) async for one in studies}


async def delete_instances(database: Database, instance_ids: Sequence[str]) -> int:
    """Delete instance documents and return how many there were."""
    condition = {"_id": {"$in": list(instance_ids)}}
    result = await database[InstanceDocument.Settings.name].delete_many(condition)
    return result.deleted_count


async def _lineages(database: Database, condition: Fields) -> list[Lineage]:
    rows = await database[InstanceDocument.Settings.name].aggregate(
        [{"$match": condition}, {"$group": _LINEAGE}]
    )
    return [Lineage(**row["_id"]) async for row in rows]


def _upsert(entry: IndexRecord, now: datetime, *, is_news: bool) -> UpdateOne:
    stamps: dict[str, Any] = {_INDEXED_AT: now, "version": new_version()}
    fields = instance_fields(entry)
    on_insert: dict[str, Any] = {_USE_ORTHANC_PREVIEW: True}
    if is_news:
        fields |= stamps
    else:
        # The document existed a moment ago. If it was removed since, insert it with all fields.
        on_insert |= stamps
    return UpdateOne(
        {"_id": entry.ids.instance}, {"$set": fields, "$setOnInsert": on_insert}, upsert=True
    )
