"""The full comparison: a few list calls, and a level down only where something differs.

Orthanc tells every study with the time of its last arrival (`LastUpdate`) and counts all instances.
A study is in agreement when that time and the version of our own document are those of the last
comparison that looked inside. A deletion within a study moves no time, but it changes the count:
when the counts differ after all studies are dealt with (see `services.sync.census`), the lists of
instances of all series are compared.

What could not be indexed is on record (see `services.sync.faults`): it is tried again by itself
when its time has come, and left out where instances are counted, so that it makes nothing dear.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from pymongo import ReplaceOne
from pymongo.asynchronous.database import AsyncDatabase

from models.compared_study import ComparedStudyDocument
from models.instance import InstanceDocument
from models.study import StudyDocument
from services.database import translated_database_faults
from services.errors import OrthancNotFound
from services.orthanc.answers import SeriesListing, StudyListing
from services.orthanc.client import OrthancClient
from services.sync.census import Census
from services.sync.isolating import Isolation
from services.sync.reconciling import BATCH_INSTANCES, Reconciler
from services.sync.repairs import Repairs, SyncReport
from services.sync.roll_ups import RollUps
from services.sync.waiting import wait_for_all

PAGE_STUDIES = 1_000
"""Studies asked for at once: Orthanc answers so many in 50 ms, one megabyte."""

PAGE_SERIES = 500
"""Series asked for at once when instances are counted: their ids come along."""

_GONE_AT_ONCE = 5_000
"""Studies of one command: 44 bytes each, and a command holds 16 MB."""

CONCURRENT_STUDIES = 4
"""Studies looked into at once."""


_KnownStudy = tuple[str, int]
"""Version and number of series of a study of ours."""


class Comparison:
    """Compares MongoDB with Orthanc and repairs; stateless but for what MongoDB keeps."""

    def __init__(
        self,
        orthanc: OrthancClient,
        database: AsyncDatabase[dict[str, Any]],
        reconciler: Reconciler,
        roll_ups: RollUps,
    ) -> None:
        self._orthanc = orthanc
        self._studies = database[StudyDocument.Settings.name]
        self._instances = database[InstanceDocument.Settings.name]
        self._compared = database[ComparedStudyDocument.Settings.name]
        self._reconciler = reconciler
        self._isolation = Isolation(orthanc, reconciler)
        self.roll_ups = roll_ups
        self.census = Census(orthanc, database, reconciler.faults)

    async def run(self, *, repair: bool = True) -> SyncReport:
        """Compare everything.

        Args:
            repair: False only tells what would be done.

        Raises:
            OrthancUnavailable: Orthanc does not answer; what was done until then stays.
            DatabaseUnavailable: MongoDB does not answer.
        """
        work = Repairs(self._reconciler, self._isolation, self.roll_ups, repair=repair)
        await (self._retry_faults(work) if repair else self._tell_faults(work))
        known = await self._known_studies()
        seen: set[str] = set()
        async for page in self._study_pages():
            seen.update(listing.study_id for listing in page)
            await self._look_into(await self._suspicious(page, known), work)
        await self._look_into_gone([study for study in known if study not in seen], work)
        if await self.census.differs():
            await self._compare_instances(work)
        return work.report()

    async def _retry_faults(self, work: Repairs) -> None:
        """Try again what failed before and has waited long enough."""
        faults, begun = self._reconciler.faults, datetime.now(UTC)
        while due := await faults.due(begun, BATCH_INSTANCES):
            await work.reconcile(due, patience=0)
            await faults.settle(due, begun)

    async def _tell_faults(self, work: Repairs) -> None:
        faults = await self._reconciler.faults.on_record()
        await work.reconcile(fault.instance_id for fault in faults)

    async def _study_pages(self) -> AsyncIterator[list[StudyListing]]:
        since = 0
        while True:
            page = await self._orthanc.studies(since, PAGE_STUDIES)
            if page:
                yield page
            if len(page) < PAGE_STUDIES:
                return
            since += len(page)

    async def _known_studies(self) -> dict[str, _KnownStudy]:
        with translated_database_faults():
            cursor = self._studies.find({}, {"version": 1, "numberOfSeries": 1}, batch_size=10_000)
            return {
                study["_id"]: (study["version"], study["numberOfSeries"]) async for study in cursor
            }

    async def _suspicious(
        self, page: Sequence[StudyListing], known: Mapping[str, _KnownStudy]
    ) -> list[tuple[StudyListing, str | None]]:
        """Return the studies to look into, with the version of our document as it was."""
        with translated_database_faults():
            compared = {
                record["_id"]: (record["lastUpdate"], record["studyVersion"])
                async for record in self._compared.find(
                    {"_id": {"$in": [listing.study_id for listing in page]}},
                    batch_size=PAGE_STUDIES,
                )
            }
        suspicious = []
        for listing in page:
            version, number_of_series = known.get(listing.study_id, (None, 0))
            is_as_compared = compared.get(listing.study_id) == (listing.last_update, version)
            if not is_as_compared or number_of_series != len(listing.series_ids):
                suspicious.append((listing, version))
        return suspicious

    async def _look_into(
        self, studies: Sequence[tuple[StudyListing, str | None]], work: Repairs
    ) -> None:
        gate = asyncio.Semaphore(CONCURRENT_STUDIES)

        async def look(listing: StudyListing, version: str | None) -> str | None:
            async with gate:
                return await self._compare_study(listing, version, work)

        agreeing = await wait_for_all(look(*study) for study in studies)
        records = [
            ReplaceOne(
                {"_id": listing.study_id},
                {"lastUpdate": listing.last_update, "studyVersion": version},
                upsert=True,
            )
            for (listing, _), version in zip(studies, agreeing, strict=True)
            if version is not None
        ]
        if records:
            with translated_database_faults():
                await self._compared.bulk_write(records, ordered=False)

    async def _compare_study(
        self, listing: StudyListing, version: str | None, work: Repairs
    ) -> str | None:
        """Bring one study in step.

        Returns:
            The version of our document when the study may be passed by next time.
        """
        try:
            series = await self._orthanc.study_series(listing.study_id)
        except OrthancNotFound:
            series = []
        held = {instance for entry in series for instance in entry.instance_ids}
        is_same = await work.reconcile(held | await self._indexed_in_study(listing.study_id))
        is_right = await work.roll_up([listing.study_id])
        # While a study still grows, its LastUpdate may stay the same for a second.
        return version if is_same and is_right and listing.is_stable else None

    async def _indexed_in_study(self, study_id: str) -> set[str]:
        with translated_database_faults():
            cursor = self._instances.find({"orthancStudyId": study_id}, {"_id": 1})
            return {instance["_id"] async for instance in cursor}

    async def _look_into_gone(self, study_ids: Sequence[str], work: Repairs) -> None:
        """Take out what Orthanc did not list, after asking for each of its instances again."""
        for start in range(0, len(study_ids), _GONE_AT_ONCE):
            chunk = list(study_ids[start : start + _GONE_AT_ONCE])
            for study_id in chunk:
                await work.reconcile(await self._indexed_in_study(study_id))
            await work.roll_up(chunk)
            with translated_database_faults():
                await self._compared.delete_many({"_id": {"$in": chunk}})

    async def _compare_instances(self, work: Repairs) -> None:
        """Compare the instances of all series, page by page."""
        seen: set[str] = set()
        page: list[SeriesListing] = []
        while len(page) == PAGE_SERIES or not seen:
            page = await self._orthanc.series(len(seen), PAGE_SERIES)
            if not page:
                break
            seen.update(entry.series_id for entry in page)
            await self._compare_series(page, work)

    async def _compare_series(self, page: Sequence[SeriesListing], work: Repairs) -> None:
        held = {instance for entry in page for instance in entry.instance_ids}
        with translated_database_faults():
            cursor = self._instances.find(
                {"orthancSeriesId": {"$in": [entry.series_id for entry in page]}},
                {"_id": 1},
                batch_size=10_000,
            )
            indexed = {instance["_id"] async for instance in cursor}
        await work.reconcile(held ^ indexed)
        await work.roll_up({entry.study_id for entry in page})
