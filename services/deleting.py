"""Deleting patients, studies, series and instances: in Orthanc first, then here."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from enum import Enum
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models.instance import InstanceDocument
from models.study import StudyDocument
from services.database import translated_database_faults
from services.errors import OrthancNotFound
from services.orthanc.client import OrthancClient
from services.sync.reconciling import Reconciler


class Level(Enum):
    """DICOM's levels, by the name of Orthanc's collections."""

    PATIENT = "patients"
    STUDY = "studies"
    SERIES = "series"
    INSTANCE = "instances"


class Deletion:
    """Deletes; doing it twice is doing it once."""

    def __init__(
        self,
        orthanc: OrthancClient,
        database: AsyncDatabase[dict[str, Any]],
        reconciler: Reconciler,
        *,
        on_deleted: Callable[[Iterable[str]], None],
    ) -> None:
        """Nothing is asked yet.

        Args:
            orthanc: Where the files are.
            database: Where the index is.
            reconciler: What brings the index to what Orthanc holds.
            on_deleted: Forgets what is kept of instances, such as rendered frames.
        """
        self._orthanc = orthanc
        self._studies = database[StudyDocument.Settings.name]
        self._instances = database[InstanceDocument.Settings.name]
        self._reconciler = reconciler
        self._on_deleted = on_deleted

    async def delete(self, level: Level, resource_id: str) -> int:
        """Delete a resource with everything in it; parents that become empty go too.

        Args:
            level: What it is.
            resource_id: Orthanc's identifier of it.

        Returns:
            Number of instances that are gone from the index, 0 when there was none.

        Raises:
            OrthancUnavailable: Orthanc does not answer: nothing was taken out of the index.
            DatabaseUnavailable: MongoDB does not answer; what Orthanc deleted until then is found
                by the next comparison.
        """
        instance_ids = await self._instances_of(level, resource_id)
        # Deleted before, perhaps by a call that broke off: the index is what is left to do.
        with suppress(OrthancNotFound):
            await self._orthanc.delete(level.value, resource_id)
        done = await self._reconciler.reconcile(instance_ids)
        self._on_deleted(done.removed)
        return len(done.removed)

    async def _instances_of(self, level: Level, resource_id: str) -> list[str]:
        with translated_database_faults():
            cursor = self._instances.find(await self._filter(level, resource_id), {"_id": 1})
            return [instance["_id"] async for instance in cursor]

    async def _filter(self, level: Level, resource_id: str) -> Mapping[str, Any]:
        if level is Level.INSTANCE:
            return {"_id": resource_id}
        if level is Level.SERIES:
            return {"orthancSeriesId": resource_id}
        if level is Level.STUDY:
            return {"orthancStudyId": resource_id}
        studies = self._studies.find({"orthancPatientId": resource_id}, {"_id": 1})
        return {"orthancStudyId": {"$in": [study["_id"] async for study in studies]}}
