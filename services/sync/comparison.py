"""The comparison with Orthanc: a few list calls, and details only of studies that differ.

Orthanc lists every study with the time of its last arrival (`LastUpdate`) and counts all instances.
A study agrees if that time and the version of our own document are those of the last comparison
of its instances. A deletion within a study does not change the time, but the count: if the counts
differ after all studies are compared (see `CountCheck`), the instances of all series are compared.

While the counts agree, it is enough to compare one slice of the studies at a time: arrivals are
indexed from the change feed, and an unreported deletion changes the counts. The cost of `run_slice`
is therefore independent of the store. While files arrive, it compares all studies once an hour.

Instances that could not be indexed are recorded (see `services.sync.faults`) and tried again later.
They are not counted, so that they cause no expensive comparison.
"""

import asyncio
import math
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from pymongo import ReplaceOne
from pymongo.asynchronous.database import AsyncDatabase

from models import ComparedStudyDocument, InstanceDocument, SeriesDocument, StudyDocument
from models.stored import stored_name
from services.database import translated_database_faults
from services.errors import OrthancNotFound
from services.index.record import INDEX_VERSION
from services.orthanc.answers import SeriesListing, StudyListing
from services.orthanc.client import OrthancClient
from services.sync.counts import CountCheck
from services.sync.faults import of_these
from services.sync.isolation import PATIENCE, PoisonIsolator
from services.sync.reconciler import BATCH_INSTANCES, Reconciler, batches
from services.sync.rollup_check import RollUps
from services.tasks import HANGING_SECONDS, beat, wait_for_all

_INDEX_VERSION_FIELD = stored_name(ComparedStudyDocument.index_version)
_LAST_UPDATE = stored_name(ComparedStudyDocument.last_update)
_STUDY_VERSION = stored_name(ComparedStudyDocument.study_version)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_NUMBER_OF_INSTANCES = stored_name(SeriesDocument.number_of_instances)
_NUMBER_OF_SERIES = stored_name(StudyDocument.number_of_series)


@dataclass(frozen=True, slots=True)
class SyncReport:
    """What a comparison found and did, or would do.

    Attributes:
        indexed: Instances that Orthanc holds and that were missing or replaced.
        removed: Instances that Orthanc does not have any more.
        recounted: Studies with a wrong count or attribute, also of their series and patients. A
            patient without any study counts as one.
        faults: Reasons by instance id why instances could not be indexed; those that were skipped
            because they failed before are only reported if nothing was repaired.
    """

    indexed: int = 0
    removed: int = 0
    recounted: int = 0
    faults: dict[str, str] = field(default_factory=dict)

    @property
    def up_to_date(self) -> bool:
        """Whether nothing had to be done."""
        return not (self.indexed or self.removed or self.recounted)


class Repairs:
    """Repairs the differences that a comparison finds; without `repair` it only counts them."""

    def __init__(
        self, reconciler: Reconciler, isolation: PoisonIsolator, roll_ups: RollUps, *, repair: bool
    ) -> None:
        self._reconciler = reconciler
        self._isolation = isolation
        self._roll_ups = roll_ups
        self._repair = repair
        # Sets, because a comparison that repairs nothing meets the same difference twice.
        self._indexed: set[str] = set()
        self._removed: set[str] = set()
        self._recounted: set[str] = set()
        self._faults: dict[str, str] = {}

    @property
    def repairs(self) -> bool:
        """Whether anything may be written."""
        return self._repair

    async def reconcile(self, instance_ids: Iterable[str], *, patience: int = PATIENCE) -> bool:
        """Repair instances that may differ.

        Args:
            instance_ids: The instances in question.
            patience: As in `PoisonIsolator.reconcile`.

        Returns:
            Whether they agreed and none is faulty.
        """
        is_same = True
        # Sorted: a batch that failed before is recognized by its first instance.
        for batch in batches(sorted(instance_ids), BATCH_INSTANCES):
            beat(HANGING_SECONDS)
            is_same &= await (
                self._reconcile(batch, patience) if self._repair else self._count(batch)
            )
        return is_same

    async def roll_up(self, study_ids: Collection[str], *, with_series: bool = True) -> bool:
        """Repair studies whose counts or attributes may be wrong.

        Args:
            study_ids: The studies in question.
            with_series: Look at their instances as well.

        Returns:
            Whether they were right.
        """
        wrong = await self._roll_ups.roll_up(
            study_ids, with_series=with_series, dry_run=not self._repair
        )
        self._recounted |= wrong
        return not wrong

    async def roll_up_patients(self) -> None:
        """Repair patients whose number of studies is wrong."""
        self._recounted |= await self._roll_ups.roll_up_patients(dry_run=not self._repair)

    def report(self) -> SyncReport:
        """Return what was found until now."""
        return SyncReport(
            indexed=len(self._indexed),
            removed=len(self._removed),
            recounted=len(self._recounted),
            faults=dict(self._faults),
        )

    async def _reconcile(self, batch: list[str], patience: int) -> bool:
        done = await self._isolation.reconcile(batch, patience=patience)
        await self._roll_ups.roll_up(done.postponed_studies)
        self._indexed |= done.indexed
        self._removed |= done.removed
        self._faults |= done.faults
        return not (done.indexed or done.removed or done.faults)

    async def _count(self, batch: list[str]) -> bool:
        differences = await self._reconciler.differences(batch)
        faults = of_these(differences.missing, await self._reconciler.faults.on_record())
        self._faults |= {fault.instance_id: fault.reason for fault in faults}
        self._indexed |= {file.instance_id for file in differences.missing} - self._faults.keys()
        self._removed |= set(differences.gone)
        return not differences


PAGE_STUDIES = 1_000
"""Studies in one call: Orthanc answers it in 50 ms, with one megabyte."""

_PAGES_AT_ONCE = 5
"""Pages of studies of which a whole comparison asks at once whether they are still there."""

PAGE_SERIES = 500
"""Series in one call when instances are compared; the answer includes their instance ids."""

CONCURRENT_STUDIES = 4
"""Studies that are compared in detail at the same time."""

_SLICES = 60
"""Slices of one round over a large store."""


@dataclass(frozen=True, slots=True)
class Part:
    """Every so many pages of Orthanc's list of studies, so that several processes share them.

    Attributes:
        number: Of this part, 1-based.
        of: How many parts there are.
    """

    number: int = 1
    of: int = 1


WHOLE = Part()


class Comparison:
    """Compares MongoDB with Orthanc and repairs differences; its only state is the next slice."""

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
        self._isolation = PoisonIsolator(orthanc, reconciler)
        self.roll_ups = roll_ups
        self.counts = CountCheck(orthanc, database, reconciler.faults)
        self._next: tuple[int, str] | None = None

    async def run(
        self, *, repair: bool = True, is_thorough: bool = False, part: Part = WHOLE
    ) -> SyncReport:
        """Compare everything, or a part of the studies that Orthanc holds.

        Args:
            repair: Whether to repair; False only reports the differences.
            part: Which pages of studies. The first part takes out as well what Orthanc does not
                hold; the numbers of instances are compared by the whole alone.
            is_thorough: Check that every study and patient says what its files say, also where
                nothing was written since the last comparison.

        Raises:
            OrthancUnavailable: Orthanc does not answer; repairs until then remain.
            DatabaseUnavailable: MongoDB does not answer.
        """
        work = Repairs(self._reconciler, self._isolation, self.roll_ups, repair=repair)
        if part.number == 1:
            await (self._retry_faults(work) if repair else self._count_faults(work))
        since = (part.number - 1) * PAGE_STUDIES
        while await self._compare_page(since, work, is_thorough=is_thorough) == PAGE_STUDIES:
            since += part.of * PAGE_STUDIES
        after: str | None = "" if part.number == 1 else None
        while after is not None:
            after = await self._look_for_gone(after, work, _PAGES_AT_ONCE * PAGE_STUDIES)
        await work.roll_up_patients()
        if part == WHOLE and await self.counts.differs():
            await self._compare_instances(work)
        return work.report()

    async def run_slice(self) -> SyncReport:
        """Compare the next slice of the studies; all of them if they are few.

        The first slice begins at a random place, so that restarts do not exclude any study.

        Raises:
            OrthancUnavailable: Orthanc does not answer; the slice is compared again.
            DatabaseUnavailable: MongoDB does not answer.
        """
        held = (await self._orthanc.statistics()).studies
        if held <= PAGE_STUDIES:
            return await self.run()
        work = Repairs(self._reconciler, self._isolation, self.roll_ups, repair=True)
        await self._retry_faults(work)
        since, after = self._next or (
            random.randrange(held),  # noqa: S311  # no secret
            f"{random.getrandbits(32):08x}",
        )
        for _ in range(math.ceil(held / _SLICES / PAGE_STUDIES)):
            page = await self._compare_page(since, work)
            since = since + page if page == PAGE_STUDIES else 0
            after = await self._look_for_gone(after, work, PAGE_STUDIES) or ""
            self._next = since, after
        return work.report()

    async def has_outdated_records(self) -> bool:
        """Return whether an earlier release, which read files differently, compared any study.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            outdated = {_INDEX_VERSION_FIELD: {"$ne": INDEX_VERSION}}
            return await self._compared.find_one(outdated, {"_id": 1}) is not None

    async def _retry_faults(self, work: Repairs) -> None:
        """Try again the instances that failed before and have waited long enough."""
        faults, begun = self._reconciler.faults, datetime.now(UTC)
        while due := await faults.due(begun, BATCH_INSTANCES):
            await work.reconcile(due, patience=0)
            await faults.settle(due, begun)

    async def _count_faults(self, work: Repairs) -> None:
        faults = await self._reconciler.faults.on_record()
        await work.reconcile(fault.instance_id for fault in faults)

    async def _compare_page(self, since: int, work: Repairs, *, is_thorough: bool = False) -> int:
        """Compare the studies from a 0-based position on; return how many Orthanc listed."""
        page = await self._orthanc.studies(since, PAGE_STUDIES)
        beat(HANGING_SECONDS)
        known = await self._known_studies(listing.study_id for listing in page)
        suspicious = await self._suspicious(page, known)
        await self._look_into(suspicious, work)
        if is_thorough:
            others = known.keys() - {listing.study_id for listing, _ in suspicious}
            await work.roll_up(others, with_series=False)
        return len(page)

    async def _known_studies(self, study_ids: Iterable[str]) -> dict[str, tuple[str, int]]:
        """Return the version and the number of series of the studies that are indexed."""
        with translated_database_faults():
            cursor = self._studies.find(
                {"_id": {"$in": list(study_ids)}}, {"version": 1, _NUMBER_OF_SERIES: 1}
            )
            return {
                study["_id"]: (study["version"], study[_NUMBER_OF_SERIES]) async for study in cursor
            }

    async def _suspicious(
        self, page: Sequence[StudyListing], known: Mapping[str, tuple[str, int]]
    ) -> list[tuple[StudyListing, str | None]]:
        """Return the studies to compare in detail, with the version of our document."""
        with translated_database_faults():
            compared = {
                record["_id"]: (record[_LAST_UPDATE], record[_STUDY_VERSION])
                async for record in self._compared.find(
                    {
                        "_id": {"$in": [listing.study_id for listing in page]},
                        _INDEX_VERSION_FIELD: INDEX_VERSION,
                    },
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
                {
                    _LAST_UPDATE: listing.last_update,
                    _STUDY_VERSION: version,
                    _INDEX_VERSION_FIELD: INDEX_VERSION,
                },
                upsert=True,
            )
            for (listing, _), version in zip(studies, agreeing, strict=True)
            if version is not None
        ]
        if records and work.repairs:
            with translated_database_faults():
                await self._compared.bulk_write(records, ordered=False)

    async def _compare_study(
        self, listing: StudyListing, version: str | None, work: Repairs
    ) -> str | None:
        """Compare and repair one study.

        Returns:
            The version of our document if the next comparison may skip the study.
        """
        try:
            series = await self._orthanc.study_series(listing.study_id)
        except OrthancNotFound:
            series = []
        held = {instance for entry in series for instance in entry.instance_ids}
        is_same = await work.reconcile(held | await self._indexed_in_study(listing.study_id))
        is_right = await work.roll_up([listing.study_id])
        # LastUpdate has a resolution of one second, in which a study may still grow.
        return version if is_same and is_right and listing.is_stable else None

    async def _indexed_in_study(self, study_id: str) -> set[str]:
        with translated_database_faults():
            cursor = self._instances.find({_ORTHANC_STUDY_ID: study_id}, {"_id": 1})
            return {instance["_id"] async for instance in cursor}

    async def _look_for_gone(self, after: str, work: Repairs, limit: int) -> str | None:
        """Remove studies that Orthanc does not have, after asking for each of their instances.

        Args:
            after: Check the indexed studies whose ids follow this one.
            work: Repairs differences.
            limit: Most studies that are looked at.

        Returns:
            The last id that was checked; None at the end.
        """
        with translated_database_faults():
            cursor = self._studies.find({"_id": {"$gt": after}}, {"_id": 1})
            indexed = [study["_id"] async for study in cursor.sort("_id").limit(limit)]
        beat(HANGING_SECONDS)
        held = await self._orthanc.existing_studies(indexed)
        gone = [study_id for study_id in indexed if study_id not in held]
        for study_id in gone:
            await work.reconcile(await self._indexed_in_study(study_id))
        await work.roll_up(gone)
        if gone and work.repairs:
            with translated_database_faults():
                await self._compared.delete_many({"_id": {"$in": gone}})
        return str(indexed[-1]) if len(indexed) == limit else None

    async def _compare_instances(self, work: Repairs) -> None:
        """Compare the instances of all series, page by page.

        Pages are by position: a deletion during the comparison moves the later series, so that a
        page may repeat some of them, and miss some until the next comparison.
        """
        since = 0
        while page := await self._orthanc.series(since, PAGE_SERIES):
            await self._compare_series(page, work)
            if len(page) < PAGE_SERIES:
                return
            since += len(page)

    async def _compare_series(self, page: Sequence[SeriesListing], work: Repairs) -> None:
        held = {instance for entry in page for instance in entry.instance_ids}
        with translated_database_faults():
            cursor = self._instances.find(
                {_ORTHANC_SERIES_ID: {"$in": [entry.series_id for entry in page]}},
                {"_id": 1},
                batch_size=10_000,
            )
            indexed = {instance["_id"] async for instance in cursor}
        await work.reconcile(held ^ indexed)
        await work.roll_up({entry.study_id for entry in page})
