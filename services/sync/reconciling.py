"""Bringing the index to what Orthanc holds, for given instances: the one repair of everything."""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models.instance import InstanceDocument
from services.database import translated_database_faults
from services.ingest.indexer import Indexer
from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient
from services.sync.differences import Differences, IndexedInstance, batches, find_differences
from services.sync.faults import IndexFaults
from services.sync.indexing import index_each
from services.sync.reading import Reading, read_entries

BATCH_INSTANCES = 1_000
"""Instances asked for in one call: an answer of a megabyte, written as one batch."""

LANDING_SECONDS = 1.0
"""Uploads of this process are waited for so long: they are indexed within a few tenths."""

_ROUNDS = 3
"""What was written is compared again; whoever changes Orthanc all the time gets the next run."""


@dataclass(slots=True)
class Reconciliation:
    """What was done.

    Attributes:
        indexed: Instances written, new ones and replaced ones.
        removed: Instances taken out, because Orthanc has them no more.
        faults: Reasons by instance id of what Orthanc holds and could not be indexed.
        unchanged_studies: Studies of instances that were indexed already: by somebody who may
            have died before the counts were right.
    """

    indexed: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    faults: dict[str, str] = field(default_factory=dict)
    unchanged_studies: set[str] = field(default_factory=set)

    def add(self, other: "Reconciliation") -> None:
        """Take another's findings in."""
        self.indexed |= other.indexed
        self.removed |= other.removed
        self.faults |= other.faults
        self.unchanged_studies |= other.unchanged_studies


class Reconciler:
    """Asks Orthanc about instances and makes the index say the same.

    Attributes:
        faults: What can't be indexed.
    """

    def __init__(
        self,
        orthanc: OrthancClient,
        database: AsyncDatabase[dict[str, Any]],
        indexer: Indexer,
        *,
        frame_max_pixels: int,
    ) -> None:
        self._orthanc = orthanc
        self._instances = database[InstanceDocument.Settings.name]
        self.faults = IndexFaults(database)
        self._indexer = indexer
        self._frame_max_pixels = frame_max_pixels

    async def differences(self, instance_ids: Collection[str]) -> Differences:
        """Compare at most `BATCH_INSTANCES` instances: one call and one command.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        # Orthanc first: what is uploaded between the two is then indexed, not gone.
        held = await self._orthanc.stored_files(list(instance_ids))
        return find_differences(instance_ids, held, await self._indexed(instance_ids))

    async def reconcile(self, instance_ids: Iterable[str]) -> Reconciliation:
        """Index what Orthanc holds of these instances and remove what it has no more.

        What was written is compared once more, so that an instance that comes or goes meanwhile
        is neither lost nor left as a ghost. Doing it twice, or at once in two processes, is safe.
        What an upload of this process is about to index comes last, when it is done.

        Args:
            instance_ids: The instances in question, known or not, there or not.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        wanted = dict.fromkeys(instance_ids)
        landing = dict.fromkeys(self._indexer.landing.among(wanted))
        result = await self._reconcile_batches([id_ for id_ in wanted if id_ not in landing])
        if landing:
            await self._indexer.landing.wait_for(landing, seconds=LANDING_SECONDS)
            result.add(await self._reconcile_batches(landing))
        return result

    async def _reconcile_batches(self, instance_ids: Iterable[str]) -> Reconciliation:
        result = Reconciliation()
        for batch in batches(instance_ids, BATCH_INSTANCES):
            result.add(await self._reconcile_batch(batch))
        return result

    async def _reconcile_batch(self, batch: Sequence[str]) -> Reconciliation:
        result = Reconciliation()
        pending: Sequence[str] = batch
        for attempt in range(_ROUNDS):
            differences = await self.differences(pending)
            if attempt == 0:
                result.unchanged_studies |= differences.unchanged_studies
            if not differences:
                break
            done, pending = await self._repair(differences)
            result.add(done)
            if not pending:
                break
        return result

    async def _repair(self, differences: Differences) -> tuple[Reconciliation, list[str]]:
        result = Reconciliation()
        if differences.gone:
            await self._indexer.remove(differences.gone)
            result.removed = set(differences.gone)
        reading = await self._read(differences.missing)
        refused = await index_each(self._indexer, reading.entries)
        result.faults = reading.faults | refused
        await self.faults.record(differences.missing, result.faults)
        written = [entry.ids.instance for entry in reading.entries]
        result.indexed = set(written) - refused.keys()
        return result, [*differences.gone, *result.indexed]

    async def _read(self, missing: Sequence[StoredFile]) -> Reading:
        if not missing:
            return Reading()
        passed_by = await self.faults.passed_by(missing)
        return await read_entries(
            self._orthanc,
            [file for file in missing if file.instance_id not in passed_by],
            frame_max_pixels=self._frame_max_pixels,
            indexed_by_series=await self._indexed_by_series({file.series_id for file in missing}),
        )

    async def _indexed(self, instance_ids: Collection[str]) -> dict[str, IndexedInstance]:
        with translated_database_faults():
            found = await self._instances.find(
                {"_id": {"$in": list(instance_ids)}}, {"revision": 1, "orthancStudyId": 1}
            ).to_list()
        return {
            instance["_id"]: IndexedInstance(instance["revision"], instance["orthancStudyId"])
            for instance in found
        }

    async def _indexed_by_series(self, series_ids: Collection[str]) -> Counter[str]:
        with translated_database_faults():
            cursor = await self._instances.aggregate(
                [
                    {"$match": {"orthancSeriesId": {"$in": list(series_ids)}}},
                    {"$group": {"_id": "$orthancSeriesId", "count": {"$sum": 1}}},
                ]
            )
            return Counter({group["_id"]: group["count"] async for group in cursor})
