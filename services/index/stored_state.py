"""The stored documents of instances and their parents, read before a commit writes them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, PatientDocument, SeriesDocument, StudyDocument
from models.stored import stored_name
from services.index.record import Fields, IndexRecord

_INDEX_VERSION_FIELD = stored_name(InstanceDocument.index_version)
_PATIENT_ID = stored_name(StudyDocument.patient_id)
_PATIENT_NAME = stored_name(StudyDocument.patient_name)


_REVISION = {
    "_id": "$_id",
    "revision": "$revision",
    _INDEX_VERSION_FIELD: f"${_INDEX_VERSION_FIELD}",
}


@dataclass(frozen=True, slots=True)
class StoredState:
    """The stored documents by `_id`.

    Attributes:
        instances: Only their revisions and index versions.
        series: Complete documents, as `studies` and `patients`.
    """

    instances: Mapping[str, Fields]
    series: Mapping[str, Fields]
    studies: Mapping[str, Fields]
    patients: Mapping[str, Fields]


async def load_stored_state(
    database: AsyncDatabase[dict[str, Any]], entries: Sequence[IndexRecord]
) -> StoredState:
    """Read all four collections with one command.

    A parent's version is therefore read before its children, as `services.index.optimistic_locking`
    requires.
    """
    instances, series, studies, patients = (
        document.Settings.name
        for document in (InstanceDocument, SeriesDocument, StudyDocument, PatientDocument)
    )
    rows = await database[instances].aggregate(
        [
            *_tagged(instances, {entry.ids.instance for entry in entries}, _REVISION),
            _with(series, {entry.ids.series for entry in entries}),
            _with(studies, {entry.ids.study for entry in entries}),
            _with(patients, {entry.ids.patient for entry in entries}),
        ]
    )
    found: dict[str, dict[str, Fields]] = {instances: {}, series: {}, studies: {}, patients: {}}
    async for row in rows:
        found[row["of"]][row["document"]["_id"]] = row["document"]
    return StoredState(found[instances], found[series], found[studies], found[patients])


async def load_patient_names(
    database: AsyncDatabase[dict[str, Any]], patient_id: str
) -> Collection[str]:
    """Return the patient names of the studies that are stored under a PatientID."""
    studies = database[StudyDocument.Settings.name]
    names = await studies.distinct(_PATIENT_NAME, {_PATIENT_ID: patient_id})
    return [name for name in names if name]


def _with(collection: str, ids: Collection[str]) -> dict[str, Any]:
    return {"$unionWith": {"coll": collection, "pipeline": _tagged(collection, ids, "$$ROOT")}}


def _tagged(collection: str, ids: Collection[str], document: object) -> list[dict[str, Any]]:
    """Select documents with the name of their collection: a PatientID can make two ids equal."""
    return [
        {"$match": {"_id": {"$in": list(ids)}}},
        {"$project": {"_id": 0, "of": {"$literal": collection}, "document": document}},
    ]
