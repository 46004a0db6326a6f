"""Roll what is stored up: series from instances, studies from series, patients from studies."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, PatientDocument, SeriesDocument, StudyDocument
from services.ingest.compare_and_set import settle
from services.ingest.known import Known
from services.ingest.levels import Attributes, PatientLevel, SeriesLevel, StudyLevel


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
    known: Known | None = None,
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
