"""What is stored of instances and their parents before a commit writes any of them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, PatientDocument, SeriesDocument, StudyDocument
from services.ingest.entry import IndexEntry
from services.ingest.stored_fields import Fields


@dataclass(frozen=True, slots=True)
class Known:
    """What was found, by `_id`.

    Attributes:
        revisions: Of the instances.
        parents: The whole documents of their series, studies and patients.
    """

    revisions: Mapping[str, str | None]
    parents: Mapping[str, Fields]


async def read_known(
    database: AsyncDatabase[dict[str, Any]], entries: Sequence[IndexEntry]
) -> Known:
    """Read all four collections by one command.

    A parent's version is thereby older than its children are when they are read: a race that is
    lost for it is only lost earlier, see `compare_and_set`.
    """
    instance_ids = {entry.ids.instance for entry in entries}
    rows = await database[InstanceDocument.Settings.name].aggregate(
        [
            _named(instance_ids),
            {"$project": {"revision": 1}},
            _with(SeriesDocument.Settings.name, {entry.ids.series for entry in entries}),
            _with(StudyDocument.Settings.name, {entry.ids.study for entry in entries}),
            _with(PatientDocument.Settings.name, {entry.ids.patient for entry in entries}),
        ]
    )
    revisions: dict[str, str | None] = {}
    parents: dict[str, Fields] = {}
    async for row in rows:
        if row["_id"] in instance_ids:
            revisions[row["_id"]] = row.get("revision")
        else:
            parents[row["_id"]] = row
    return Known(revisions, parents)


def _named(ids: Collection[str]) -> dict[str, Any]:
    return {"$match": {"_id": {"$in": list(ids)}}}


def _with(collection: str, ids: Collection[str]) -> dict[str, Any]:
    return {"$unionWith": {"coll": collection, "pipeline": [_named(ids)]}}
