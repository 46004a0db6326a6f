"""Finding and repairing parents whose counts are not those of their children."""

import logging
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models.instance import InstanceDocument
from models.patient import PatientDocument
from models.series import SeriesDocument
from models.study import StudyDocument
from services.database import translated_database_faults, translated_index_faults
from services.errors import RecordRefused
from services.index.indexer import Indexer
from services.index.record import to_stored_precision
from services.index.rollup import Touched, roll_up
from services.orthanc.client import OrthancClient
from services.sync.faults import IndexFaults
from services.sync.isolation import PoisonIsolator
from services.sync.reader import read_entries
from services.sync.reconciler import Reconciliation, index_each


class ParentRepair:
    """Reads instances although they are indexed, and indexes them with their parents.

    Attributes:
        faults: What can't be indexed, nor read again.
    """

    def __init__(
        self,
        orthanc: OrthancClient,
        database: AsyncDatabase[dict[str, Any]],
        indexer: Indexer,
        *,
        frame_max_pixels: int,
    ) -> None:
        self.faults = IndexFaults(database)
        self._orthanc = orthanc
        self._indexer = indexer
        self._frame_max_pixels = frame_max_pixels

    async def reconcile(self, instance_ids: Iterable[str]) -> Reconciliation:
        """Read instances and write their parents; puts on record which can't be read.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        files = await self._orthanc.stored_files(list(instance_ids))
        reading = await read_entries(self._orthanc, files, frame_max_pixels=self._frame_max_pixels)
        faults = reading.faults | await index_each(self._indexer, reading.entries)
        await self.faults.record(files, faults)
        return Reconciliation(faults=faults)


_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SeriesCount:
    """What is stored of the instances of one series.

    Attributes:
        sample: One of its instances that is not on record as faulty, by Orthanc's id.
    """

    series_id: str
    study_id: str
    patient_id: str
    instances: int
    frames: int
    sample: str | None


@dataclass(frozen=True, slots=True)
class StoredParents:
    """Parents as they are stored, by id; with the fields that `wrong_studies` reads."""

    series: Mapping[str, Mapping[str, Any]]
    studies: Mapping[str, Mapping[str, Any]]
    patients: Mapping[str, Mapping[str, Any]]
    studies_of_patients: Mapping[str, int]


def wrong_studies(
    study_ids: Collection[str], counts: Collection[SeriesCount], stored: StoredParents
) -> set[str]:
    """Return the studies with a parent that is missing, superfluous or counts wrongly.

    Args:
        study_ids: The studies in question.
        counts: Of all series that have instances in these studies.
        stored: All series, studies and patients of these studies.
    """
    wrong = {
        count.study_id
        for count in counts
        if _counts(stored.series.get(count.series_id)) != (count.instances, count.frames)
        or stored.patients.get(count.patient_id, {}).get("numberOfStudies")
        != stored.studies_of_patients.get(count.patient_id)
    }
    held = {count.series_id for count in counts}
    wrong |= {one["orthancStudyId"] for id_, one in stored.series.items() if id_ not in held}
    by_study: defaultdict[str, list[SeriesCount]] = defaultdict(list)
    for count in counts:
        by_study[count.study_id].append(count)
    for study_id in study_ids:
        study, members = stored.studies.get(study_id), by_study.get(study_id, [])
        expected = (sum(one.instances for one in members), sum(one.frames for one in members))
        if members and (
            study is None or _counts(study) != expected or study["numberOfSeries"] != len(members)
        ):
            wrong.add(study_id)
        if study is not None and not members:
            wrong.add(study_id)
    return wrong


class RollUps:
    """Checks parents against their children and repairs them."""

    def __init__(
        self,
        orthanc: OrthancClient,
        database: AsyncDatabase[dict[str, Any]],
        indexer: Indexer,
        *,
        frame_max_pixels: int,
    ) -> None:
        samples = ParentRepair(orthanc, database, indexer, frame_max_pixels=frame_max_pixels)
        self._faults = samples.faults
        self._isolation = PoisonIsolator(orthanc, samples)
        self._database = database
        self._instances = database[InstanceDocument.Settings.name]
        self._series = database[SeriesDocument.Settings.name]
        self._studies = database[StudyDocument.Settings.name]
        self._patients = database[PatientDocument.Settings.name]

    async def find_wrong(self, study_ids: Collection[str]) -> set[str]:
        """Return those of some studies that are not what their children make them.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        if not study_ids:
            return set()
        with translated_database_faults():
            counts = await self._count(study_ids)
            return wrong_studies(study_ids, counts, await self._stored(study_ids, counts))

    async def repair(self, study_ids: Collection[str]) -> None:
        """Make studies, their series and their patients what their children make them.

        Raises:
            OrthancUnavailable: Orthanc does not answer, or stopped for the first few times; it is
                asked for what is missing.
            DatabaseUnavailable: MongoDB does not answer.
        """
        _log.info("%d studies are counted again", len(study_ids))
        faulty = [fault.instance_id for fault in await self._faults.on_record()]
        with translated_database_faults():
            counts = await self._count(study_ids, faulty)
            stored = await self._stored(study_ids, counts)
        # In an order of their own: a batch that fails is known again by its first instance.
        await self._isolation.reconcile(sorted(_samples_of_missing(counts, stored)))
        touched = Touched(
            series={*stored.series, *(count.series_id for count in counts)},
            studies=set(study_ids),
            patients={*stored.patients, *(count.patient_id for count in counts)},
            children_written=False,
        )
        try:
            with translated_index_faults():
                await roll_up(self._database, touched, to_stored_precision(datetime.now(UTC)))
        except RecordRefused as exc:
            # The others must not wait for it.
            if len(study_ids) > 1:
                for study_id in study_ids:
                    await self.repair([study_id])
                return
            _log.error("a parent can't be counted again", exc_info=exc)

    async def _count(
        self, study_ids: Collection[str], faulty: Collection[str] = ()
    ) -> list[SeriesCount]:
        # `$min` passes over null.
        sample = {"$cond": [{"$in": ["$_id", list(faulty)]}, None, "$_id"]}
        rows = await self._instances.aggregate(
            [
                {"$match": {"orthancStudyId": {"$in": list(study_ids)}}},
                {
                    "$group": {
                        "_id": "$orthancSeriesId",
                        "study": {"$first": "$orthancStudyId"},
                        "patient": {"$first": "$orthancPatientId"},
                        "instances": {"$sum": 1},
                        "frames": {"$sum": "$numberOfFrames"},
                        "sample": {"$min": sample},
                    }
                },
            ]
        )
        return [
            SeriesCount(
                series_id=row["_id"],
                study_id=row["study"],
                patient_id=row["patient"],
                instances=row["instances"],
                frames=row["frames"],
                sample=row["sample"],
            )
            async for row in rows
        ]

    async def _stored(
        self, study_ids: Collection[str], counts: Collection[SeriesCount]
    ) -> StoredParents:
        ids = list(study_ids)
        counted = {"numberOfInstances": 1, "numberOfFrames": 1}
        series = self._series.find(
            {"orthancStudyId": {"$in": ids}}, {**counted, "orthancStudyId": 1}
        )
        studies = self._studies.find(
            {"_id": {"$in": ids}}, {**counted, "numberOfSeries": 1, "orthancPatientId": 1}
        )
        stored_studies = {one["_id"]: one async for one in studies}
        patient_ids = list(
            {
                *(count.patient_id for count in counts),
                *(one["orthancPatientId"] for one in stored_studies.values()),
            }
        )
        patients = self._patients.find({"_id": {"$in": patient_ids}}, {"numberOfStudies": 1})
        siblings = self._studies.find(
            {"orthancPatientId": {"$in": patient_ids}}, {"orthancPatientId": 1}
        )
        return StoredParents(
            series={one["_id"]: one async for one in series},
            studies=stored_studies,
            patients={one["_id"]: one async for one in patients},
            studies_of_patients=Counter([one["orthancPatientId"] async for one in siblings]),
        )


def _samples_of_missing(counts: Collection[SeriesCount], stored: StoredParents) -> set[str]:
    """Return an instance of each series that is missing or whose parents are."""
    return {
        count.sample
        for count in counts
        if count.sample is not None
        and (
            count.series_id not in stored.series
            or count.study_id not in stored.studies
            or count.patient_id not in stored.patients
        )
    }


def _counts(parent: Mapping[str, Any] | None) -> tuple[int, int] | None:
    return None if parent is None else (parent["numberOfInstances"], parent["numberOfFrames"])
