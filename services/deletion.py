"""Deletes patients, studies, series and instances, first in Orthanc, then in the index."""

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, StudyDocument
from models.stored import stored_name
from services.database import translated_database_faults
from services.errors import OrthancNotFound
from services.orthanc.client import OrthancClient
from services.sync.reconciler import Reconciler

_ORTHANC_PATIENT_ID = stored_name(InstanceDocument.orthanc_patient_id)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)

_TOGETHER = 500
"""Instances that are deleted in one call."""


class Level(Enum):
    """DICOM's levels, by the names of Orthanc's collections."""

    PATIENT = "patients"
    STUDY = "studies"
    SERIES = "series"
    INSTANCE = "instances"


@dataclass(frozen=True, slots=True)
class DeletionPlan:
    """The resources that a deletion removes, as they are indexed.

    Attributes:
        resource_id: Orthanc's.
        instance_ids: Orthanc's, of all instances that are deleted.
        series_ids: Orthanc's, of their series.
        study_ids: Orthanc's, of their studies.
        patient_ids: Orthanc's, of their patients.
    """

    level: Level
    resource_id: str
    instance_ids: frozenset[str]
    series_ids: frozenset[str]
    study_ids: frozenset[str]
    patient_ids: frozenset[str]


class Deletion:
    """Deletes resources; repeating a deletion changes nothing."""

    def __init__(
        self,
        orthanc: OrthancClient,
        database: AsyncDatabase[dict[str, Any]],
        reconciler: Reconciler,
    ) -> None:
        """Make one.

        Args:
            orthanc: Where the files are.
            database: Where the index is.
            reconciler: Updates the index to what Orthanc holds.
        """
        self._orthanc = orthanc
        self._database = database
        self._studies = database[StudyDocument.Settings.name]
        self._instances = database[InstanceDocument.Settings.name]
        self._reconciler = reconciler

    async def find(self, level: Level, resource_id: str) -> DeletionPlan:
        """Find what a deletion would remove; the plan is empty if it was deleted before.

        Args:
            level: Level of the resource.
            resource_id: Orthanc's identifier of the resource.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        parents = {_ORTHANC_SERIES_ID: 1, _ORTHANC_STUDY_ID: 1, _ORTHANC_PATIENT_ID: 1}
        with translated_database_faults():
            within = await self._within(level, resource_id)
            found = await self._instances.find(within, parents).to_list()
        return DeletionPlan(
            level,
            resource_id,
            instance_ids=frozenset(instance["_id"] for instance in found),
            series_ids=frozenset(instance[_ORTHANC_SERIES_ID] for instance in found),
            study_ids=frozenset(instance[_ORTHANC_STUDY_ID] for instance in found),
            patient_ids=frozenset(instance[_ORTHANC_PATIENT_ID] for instance in found),
        )

    async def delete(self, plan: DeletionPlan) -> Mapping[Level, frozenset[str]]:
        """Delete a resource with everything in it, and parents that become empty.

        Args:
            plan: From `find`.

        Returns:
            Orthanc's identifiers of the objects that were removed from the index, by level.

        Raises:
            OrthancUnavailable: Orthanc does not answer; nothing was removed from the index.
            DatabaseUnavailable: MongoDB does not answer; the next comparison removes what Orthanc
                has deleted.
        """
        await self._delete(plan.level, plan.resource_id)
        # Instances that arrived in between were deleted with the others.
        late = await self.find(plan.level, plan.resource_id)
        if plan.level is Level.PATIENT:
            # Orthanc has a separate patient for each padded form of the PatientID.
            for study_id in sorted(plan.study_ids | late.study_ids):
                await self._delete(Level.STUDY, study_id)
        done = await self._reconciler.reconcile(plan.instance_ids | late.instance_ids)
        with translated_database_faults():
            return {
                Level.PATIENT: await self._gone(Level.PATIENT, plan.patient_ids | late.patient_ids),
                Level.STUDY: await self._gone(Level.STUDY, plan.study_ids | late.study_ids),
                Level.SERIES: await self._gone(Level.SERIES, plan.series_ids | late.series_ids),
                Level.INSTANCE: frozenset(done.removed),
            }

    async def delete_instances(self, instance_ids: Collection[str]) -> None:
        """Delete these instances and nothing else: what comes beside them meanwhile stays.

        Args:
            instance_ids: Orthanc's identifiers; those that are gone are removed from the index.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        ids = sorted(instance_ids)
        for begin in range(0, len(ids), _TOGETHER):
            await self._orthanc.delete_instances(ids[begin : begin + _TOGETHER])
        await self._reconciler.reconcile(ids)

    async def _gone(self, level: Level, identifiers: frozenset[str]) -> frozenset[str]:
        """Return those of them that are not indexed any more."""
        collection = self._database[level.value]
        left = collection.find({"_id": {"$in": [*identifiers]}}, {"_id": 1})
        return identifiers - {document["_id"] async for document in left}

    async def _delete(self, level: Level, resource_id: str) -> None:
        # It was deleted before, possibly by an interrupted call: the index must still be updated.
        with suppress(OrthancNotFound):
            await self._orthanc.delete(level.value, resource_id)

    async def _within(self, level: Level, resource_id: str) -> Mapping[str, Any]:
        if level is Level.INSTANCE:
            return {"_id": resource_id}
        if level is Level.SERIES:
            return {_ORTHANC_SERIES_ID: resource_id}
        if level is Level.STUDY:
            return {_ORTHANC_STUDY_ID: resource_id}
        studies = self._studies.find({_ORTHANC_PATIENT_ID: resource_id}, {"_id": 1})
        return {_ORTHANC_STUDY_ID: {"$in": [study["_id"] async for study in studies]}}
