"""Bringing the index to what Orthanc holds, for given instances: the one repair of everything."""

import logging
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from models.index_fault import IndexFaultDocument
from models.instance import InstanceDocument
from services.database import translated_database_faults
from services.errors import DatabaseUnavailable
from services.ingest.entry import IndexEntry
from services.ingest.indexer import Indexer
from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient
from services.sync.reading import Reading, read_entries

_log = logging.getLogger(__name__)

BATCH_INSTANCES = 1_000
"""Instances asked for in one call: an answer of a megabyte, written as one batch."""

_ROUNDS = 3
"""What was written is compared again; whoever changes Orthanc all the time gets the next run."""

MAX_ATTEMPTS = 3
"""An instance that fails so often is passed by for a while."""

GIVEN_UP_FOR = timedelta(hours=1)
"""After this time a comparison tries again: the fault may have been Orthanc's disk."""


@dataclass(slots=True)
class Reconciliation:
    """What was done.

    Attributes:
        indexed: Instances written, new ones and replaced ones.
        removed: Instances taken out, because Orthanc has them no more.
        faults: Reasons by instance id of what Orthanc holds and could not be indexed.
    """

    indexed: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    faults: dict[str, str] = field(default_factory=dict)
    unchanged_studies: set[str] = field(default_factory=set)
    """Studies of instances that were indexed already: by somebody who may have died before the
    counts were right."""

    def add(self, other: "Reconciliation") -> None:
        """Take another's findings in."""
        self.indexed |= other.indexed
        self.removed |= other.removed
        self.faults |= other.faults
        self.unchanged_studies |= other.unchanged_studies


@dataclass(frozen=True, slots=True)
class IndexedInstance:
    """What the index says of an instance."""

    revision: str
    study_id: str


@dataclass(frozen=True, slots=True)
class Differences:
    """How the index differs from Orthanc for some instances."""

    missing: Sequence[StoredFile]
    """In Orthanc with a revision that is not indexed."""
    gone: Sequence[str]
    """Indexed, and not in Orthanc."""
    unchanged_studies: frozenset[str]
    """Studies of the instances that are in agreement."""

    def __bool__(self) -> bool:
        return bool(self.missing or self.gone)


def find_differences(
    instance_ids: Iterable[str], held: Iterable[StoredFile], indexed: Mapping[str, IndexedInstance]
) -> Differences:
    """Compare what Orthanc holds with what is indexed.

    Args:
        instance_ids: The instances in question.
        held: Those of them that Orthanc holds.
        indexed: Those of them that are indexed, by instance id.
    """
    by_id = {file.instance_id: file for file in held}
    missing = [
        file
        for file in by_id.values()
        if file.instance_id not in indexed or indexed[file.instance_id].revision != file.revision
    ]
    differing = {file.instance_id for file in missing}
    return Differences(
        missing=missing,
        gone=[
            instance_id
            for instance_id in instance_ids
            if instance_id in indexed and instance_id not in by_id
        ],
        unchanged_studies=frozenset(
            indexed[instance_id].study_id for instance_id in by_id if instance_id not in differing
        ),
    )


class Reconciler:
    """Asks Orthanc about instances and makes the index say the same."""

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
        self._faults = database[IndexFaultDocument.Settings.name]
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

        Args:
            instance_ids: The instances in question, known or not, there or not.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        result = Reconciliation()
        for batch in batches(dict.fromkeys(instance_ids), BATCH_INSTANCES):
            result.add(await self._reconcile_batch(batch))
        return result

    async def given_up(self, files: Sequence[StoredFile]) -> set[str]:
        """Return those whose very file failed `MAX_ATTEMPTS` times, lately."""
        with translated_database_faults():
            faults = await self._faults.find(
                {
                    "_id": {"$in": [file.instance_id for file in files]},
                    "attempts": {"$gte": MAX_ATTEMPTS},
                    "failedAt": {"$gte": datetime.now(UTC) - GIVEN_UP_FOR},
                },
                {"revision": 1},
            ).to_list()
        revisions = {fault["_id"]: fault["revision"] for fault in faults}
        return {
            file.instance_id for file in files if revisions.get(file.instance_id) == file.revision
        }

    async def give_up(self, files: Iterable[StoredFile], reason: str) -> None:
        """Pass these files by from now on, as if they had failed often enough.

        Args:
            files: What Orthanc holds of them.
            reason: What is wrong, for the log and for people.
        """
        for file in files:
            for _ in range(MAX_ATTEMPTS):
                await self.record_faults([file], {file.instance_id: reason})

    async def forget_faults(self) -> None:
        """Let everything that was given up be tried again."""
        with translated_database_faults():
            await self._faults.delete_many({})

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
        written = await self._index(reading)
        result.indexed = set(written)
        if reading.faults:
            await self.record_faults(differences.missing, reading.faults)
            result.faults = reading.faults
        return result, [*differences.gone, *written]

    async def _index(self, reading: Reading) -> list[str]:
        """Index all entries at once, or each alone when one of them can't be written."""
        if not reading.entries:
            return []
        try:
            await self._indexer.index(reading.entries)
        except DatabaseUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001  # one entry must not keep the others out
            _log.warning("a batch can't be indexed, its instances are tried alone", exc_info=exc)
            return [
                entry.ids.instance
                for entry in reading.entries
                if await self._is_indexed(entry, reading.faults)
            ]
        return [entry.ids.instance for entry in reading.entries]

    async def _is_indexed(self, entry: IndexEntry, faults: dict[str, str]) -> bool:
        try:
            await self._indexer.index([entry])
        except DatabaseUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001  # recorded; nobody else could repair it
            _log.exception("instance %s can't be indexed", entry.ids.instance)
            faults[entry.ids.instance] = type(exc).__name__
            return False
        return True

    async def _read(self, missing: Sequence[StoredFile]) -> Reading:
        if not missing:
            return Reading()
        given_up = await self.given_up(missing)
        return await read_entries(
            self._orthanc,
            [file for file in missing if file.instance_id not in given_up],
            frame_max_pixels=self._frame_max_pixels,
            indexed_by_series=await self._indexed_by_series({file.series_id for file in missing}),
        )

    async def record_faults(self, files: Iterable[StoredFile], faults: dict[str, str]) -> None:
        """Keep what could not be indexed and why; a replaced file starts at one attempt again.

        Args:
            files: The files, the faulty ones among them.
            faults: Reasons by instance id.
        """
        writes = [
            UpdateOne({"_id": file.instance_id}, _fault_update(file, faults[file.instance_id]),
                      upsert=True)
            for file in files
            if file.instance_id in faults
        ]  # fmt: skip
        if writes:
            with translated_database_faults():
                await self._faults.bulk_write(writes, ordered=False)

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


def batches(items: Iterable[str], size: int) -> Iterator[list[str]]:
    """Cut a sequence into lists of at most `size`."""
    batch: list[str] = []
    for item in items:
        batch.append(item)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _fault_update(file: StoredFile, reason: str) -> list[dict[str, Any]]:
    is_same_file = {"$eq": ["$revision", file.revision]}
    return [
        {
            "$set": {
                "attempts": {"$cond": [is_same_file, {"$add": ["$attempts", 1]}, 1]},
                "revision": file.revision,
                # A literal: a reason may begin with a dollar sign.
                "reason": {"$literal": reason},
                "failedAt": datetime.now(UTC),
            }
        }
    ]
