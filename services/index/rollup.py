"""Roll what is stored up: series from instances, studies from series, patients from studies."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, PatientDocument, SeriesDocument, StudyDocument
from services.index.optimistic_locking import Documents, Write, merged, plan_write, settle
from services.index.record import Fields, patient_search_fields, study_search_fields
from services.index.stored_state import StoredState
from services.ingest.totals import (
    SERIES_FIELDS,
    patient_content,
    patient_pipeline,
    series_pipeline,
    series_totals,
    study_totals,
)

_AGGREGATION_MS = 20_000
"""A series of 100,000 instances takes a second."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """What files say about their series or study.

    Attributes:
        fields: By stored names.
        is_news: From a file that was not indexed before, so that it may change what is stored;
            otherwise it only helps where there is nothing yet.
    """

    fields: Fields
    is_news: bool


@dataclass(frozen=True, slots=True)
class SeriesLevel:
    """Series, from their instances."""

    documents: Documents
    instances: Documents
    attributes: Mapping[str, Attributes]

    async def read_content(self, ids: Collection[str]) -> Mapping[str, Fields]:
        """Aggregate the instances of each series."""
        pipeline = series_pipeline(list(ids))
        rows = await self.instances.aggregate(pipeline, maxTimeMS=_AGGREGATION_MS)
        return {row["_id"]: series_totals(row) async for row in rows}

    def plan(
        self, id_: str, current: Fields | None, content: Fields | None, *, must_touch: bool
    ) -> Write | None:
        """Write totals, and the attributes where files have brought news."""
        said = _said(self.attributes.get(id_), current)
        return plan_write(
            id_,
            current=current,
            content=content and {**content, **said},
            on_insert={} if said else None,
            must_touch=must_touch,
        )


@dataclass(frozen=True, slots=True)
class StudyLevel:
    """Studies, from their series."""

    documents: Documents
    series: Documents
    attributes: Mapping[str, Attributes]
    now: datetime

    async def read_content(self, ids: Collection[str]) -> Mapping[str, Fields]:
        """Read the series of each study and add them up."""
        by_study: defaultdict[str, list[Fields]] = defaultdict(list)
        found = self.series.find({"orthancStudyId": {"$in": list(ids)}}, SERIES_FIELDS)
        async for one in found:
            by_study[one["orthancStudyId"]].append(one)
        return {study_id: study_totals(members) for study_id, members in by_study.items()}

    def plan(
        self, id_: str, current: Fields | None, content: Fields | None, *, must_touch: bool
    ) -> Write | None:
        """Write totals, attributes and what derives from them; `updatedAt` only on a change."""
        said = _said(self.attributes.get(id_), current)
        derived = study_search_fields(said) if said else {}
        return plan_write(
            id_,
            current=current,
            content=content and {**content, **said, **derived},
            on_insert={"createdAt": self.now} if said else None,
            on_change={"updatedAt": self.now},
            must_touch=must_touch,
        )


@dataclass(frozen=True, slots=True)
class PatientLevel:
    """Patients, from their studies alone."""

    documents: Documents
    studies: Documents

    async def read_content(self, ids: Collection[str]) -> Mapping[str, Fields]:
        """Aggregate the studies of each patient."""
        pipeline = patient_pipeline(list(ids))
        rows = await self.studies.aggregate(pipeline, maxTimeMS=_AGGREGATION_MS)
        return {row["_id"]: patient_content(row) async for row in rows}

    def plan(
        self, id_: str, current: Fields | None, content: Fields | None, *, must_touch: bool
    ) -> Write | None:
        """Write the patient as the study that changed last shows it."""
        return plan_write(
            id_,
            current=current,
            content=content and {**content, **patient_search_fields(content)},
            on_insert={},
            must_touch=must_touch,
        )


def _said(attributes: Attributes | None, current: Fields | None) -> dict[str, Any]:
    if attributes is None or (current is not None and not attributes.is_news):
        return {}
    return merged(attributes.fields, current)


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """The parents to roll up, with their attributes where files were at hand.

    Attributes:
        series: Orthanc ids, as in `studies` and `patients`.
        children_written: Instances were written or removed before this roll-up.
    """

    series: Collection[str]
    studies: Collection[str]
    patients: Collection[str]
    children_written: bool
    series_attributes: Mapping[str, Attributes] = field(default_factory=dict)
    study_attributes: Mapping[str, Attributes] = field(default_factory=dict)


async def roll_up(
    database: AsyncDatabase[dict[str, Any]],
    touched: Touched,
    now: datetime,
    *,
    known: StoredState | None = None,
) -> None:
    """Recompute parents from what is stored, bottom up; those without children go.

    Args:
        database: MongoDB.
        touched: Which parents.
        now: In UTC, with no more than milliseconds.
        known: What was stored before children were written; None: the parents are read here.

    Raises:
        DatabaseUnavailable: Too many races were lost.
    """
    instances = database[InstanceDocument.Settings.name]
    series = database[SeriesDocument.Settings.name]
    studies = database[StudyDocument.Settings.name]
    patients = database[PatientDocument.Settings.name]
    written = touched.children_written
    series_level = SeriesLevel(series, instances, touched.series_attributes)
    study_level = StudyLevel(studies, series, touched.study_attributes, now)
    patient_level = PatientLevel(patients, studies)
    series_known, studies_known, patients_known = (
        (known.series, known.studies, known.patients) if known else (None, None, None)
    )
    await settle(series_level, touched.series, children_written=written, known=series_known)
    await settle(study_level, touched.studies, children_written=written, known=studies_known)
    await settle(patient_level, touched.patients, children_written=written, known=patients_known)
