"""Series, studies and patients: where each reads its children, and what its document holds."""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from services.ingest.compare_and_set import Documents
from services.ingest.planning import Write, merged, plan_write
from services.ingest.stored_fields import Fields, patient_search_fields, study_search_fields
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
