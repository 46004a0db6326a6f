"""Roll-up: computes series from instances, studies from series, and patients from studies."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo import ReplaceOne
from pymongo.asynchronous.database import AsyncDatabase

from models import (
    DeletedStudyDocument,
    InstanceDocument,
    PatientDocument,
    SeriesDocument,
    StudyDocument,
)
from models.stored import stored_name
from services.index.aggregations import (
    SERIES_FIELDS,
    WRONG_PATIENTS,
    patient_content,
    patient_pipeline,
    series_content,
    series_pipeline,
    study_content,
)
from services.index.optimistic_locking import (
    Documents,
    Level,
    Write,
    plan_write,
    update_until_stable,
)
from services.index.record import Fields
from services.index.stack_order import choose_order, facts_pipeline
from services.index.stored_state import StoredState
from services.index.writes import Parents

_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_SERIES_INSTANCE_UID = stored_name(SeriesDocument.series_instance_uid)
_CREATED_AT = stored_name(StudyDocument.created_at)
_STUDY_INSTANCE_UID = stored_name(StudyDocument.study_instance_uid)
_UPDATED_AT = stored_name(StudyDocument.updated_at)
_DELETED_AT = stored_name(DeletedStudyDocument.deleted_at)
_FORMER_LABELS = stored_name(StudyDocument.former_labels)


_AGGREGATION_MS = 20_000
"""A series of 100,000 instances takes a second."""


@dataclass(frozen=True, slots=True)
class SeriesLevel:
    """Series, computed from all their instances.

    This takes 3 ms for 100 instances and 0.3 s for 20,000. A running total can't replace it: the
    key that orders the stack depends on the number of distinct positions and times of all
    instances, and the thumbnail is the middle of that order; a total would have to keep these sets.
    Commits therefore leave out large series, see `services.index.indexer.LARGE_SERIES`.
    """

    documents: Documents
    instances: Documents

    async def read_content(self, ids: Collection[str]) -> Mapping[str, Fields]:
        """Aggregate the instances of each series, in the order of its stack."""
        orders = await self._read_orders(ids)
        content: dict[str, Fields] = {}
        for order, members in orders.items():
            rows = await self.instances.aggregate(
                series_pipeline(members, order), maxTimeMS=_AGGREGATION_MS, allowDiskUse=True
            )
            content |= {row["_id"]: series_content(row, order) async for row in rows}
        return content

    async def _read_orders(self, ids: Collection[str]) -> Mapping[str, Sequence[str]]:
        """Return the series by their stack order; series without instances are left out."""
        series: defaultdict[str, list[str]] = defaultdict(list)
        rows = await self.instances.aggregate(
            facts_pipeline(list(ids)), maxTimeMS=_AGGREGATION_MS, allowDiskUse=True
        )
        async for row in rows:
            series[choose_order(row)].append(row["_id"])
        return series

    def plan(
        self, id_: str, current: Fields | None, content: Fields | None, *, must_touch: bool
    ) -> Write | None:
        """Plan the write of a series."""
        return plan_write(
            id_,
            current=current,
            content=content,
            on_insert={} if content and _SERIES_INSTANCE_UID in content else None,
            must_touch=must_touch,
        )

    async def record_removals(self, documents: Sequence[Fields]) -> None:
        """Record nothing: studies stand for what is in them."""


@dataclass(frozen=True, slots=True)
class StudyLevel:
    """Studies, computed from their series."""

    documents: Documents
    series: Documents
    deleted: Documents
    now: datetime

    async def read_content(self, ids: Collection[str]) -> Mapping[str, Fields]:
        """Read the series of each study and add them up."""
        by_study: defaultdict[str, list[Fields]] = defaultdict(list)
        found = self.series.find({_ORTHANC_STUDY_ID: {"$in": list(ids)}}, SERIES_FIELDS)
        async for one in found:
            by_study[one[_ORTHANC_STUDY_ID]].append(one)
        return {study_id: study_content(members) for study_id, members in by_study.items()}

    def plan(
        self, id_: str, current: Fields | None, content: Fields | None, *, must_touch: bool
    ) -> Write | None:
        """Plan the write of a study; `updatedAt` is set only when its content changes."""
        has_attributes = content is not None and _STUDY_INSTANCE_UID in content
        return plan_write(
            id_,
            current=current,
            content=content,
            on_insert={_CREATED_AT: self.now} if has_attributes else None,
            on_change={_UPDATED_AT: self.now},
            must_touch=must_touch,
        )

    async def record_removals(self, documents: Sequence[Fields]) -> None:
        """Record the deleted studies for clients that are not connected now."""
        await self.deleted.bulk_write(
            [
                ReplaceOne(
                    {"_id": study["_id"]},
                    {
                        _STUDY_INSTANCE_UID: study[_STUDY_INSTANCE_UID],
                        "labels": study.get("labels") or [],
                        _FORMER_LABELS: study.get(_FORMER_LABELS) or [],
                        _DELETED_AT: self.now,
                    },
                    upsert=True,
                )
                for study in documents
            ],
            ordered=False,
        )


@dataclass(frozen=True, slots=True)
class PatientLevel:
    """Patients, computed from their studies."""

    documents: Documents
    studies: Documents

    async def read_content(self, ids: Collection[str]) -> Mapping[str, Fields]:
        """Aggregate the studies of each patient."""
        rows = await self.studies.aggregate(
            patient_pipeline(list(ids)), maxTimeMS=_AGGREGATION_MS, allowDiskUse=True
        )
        return {row["_id"]: patient_content(row) async for row in rows}

    def plan(
        self, id_: str, current: Fields | None, content: Fields | None, *, must_touch: bool
    ) -> Write | None:
        """Plan the write of a patient, with the demographics of the study that was indexed last."""
        return plan_write(
            id_, current=current, content=content, on_insert={}, must_touch=must_touch
        )

    async def record_removals(self, documents: Sequence[Fields]) -> None:
        """Record nothing: studies stand for what is in them."""


def _levels(database: AsyncDatabase[dict[str, Any]], now: datetime) -> tuple[Level, Level, Level]:
    instances, series, studies, patients, deleted = (
        database[document.Settings.name]
        for document in (
            InstanceDocument,
            SeriesDocument,
            StudyDocument,
            PatientDocument,
            DeletedStudyDocument,
        )
    )
    return (
        SeriesLevel(series, instances),
        StudyLevel(studies, series, deleted, now),
        PatientLevel(patients, studies),
    )


async def roll_up(
    database: AsyncDatabase[dict[str, Any]],
    parents: Parents,
    now: datetime,
    *,
    children_written: bool,
    known: StoredState | None = None,
    dry_run: bool = False,
) -> Parents:
    """Recompute parents from stored documents, bottom up; remove parents without children.

    Args:
        database: MongoDB.
        parents: Which ones.
        now: In UTC, with no more than milliseconds.
        children_written: Instances were written or removed before this roll-up.
        known: The stored state before children were written; None: the parents are read here.
        dry_run: Write nothing. A level then does not see what would change in the level below it.

    Returns:
        The parents that were written or removed, or would be in a dry run.

    Raises:
        DatabaseUnavailable: Too many races were lost.
    """
    series, studies, patients = [
        await update_until_stable(
            level, ids, children_written=children_written, known=stored, dry_run=dry_run
        )
        for level, ids, stored in zip(
            _levels(database, now),
            (parents.series, parents.studies, parents.patients),
            (known.series, known.studies, known.patients) if known else (None, None, None),
            strict=True,
        )
    ]
    return Parents(series, studies, patients)


async def find_miscounted_patients(database: AsyncDatabase[dict[str, Any]]) -> list[str]:
    """Return the patients whose stored number of studies is wrong.

    A process that ends after it removed a study and before it updated the patient leaves no other
    trace.
    """
    studies = database[StudyDocument.Settings.name]
    rows = await studies.aggregate(WRONG_PATIENTS, allowDiskUse=True)
    return [row["_id"] async for row in rows]
