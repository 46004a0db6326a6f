"""Reconciles the index with Orthanc for given instances; all repairs of instances are made here."""

import asyncio
import logging
from collections.abc import (
    AsyncIterator,
    Callable,
    Collection,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument
from models.stored import stored_name
from services.database import translated_database_faults
from services.dicom.layout import WalkLimits
from services.errors import DatabaseUnavailable
from services.index.indexer import Indexer
from services.index.record import INDEX_VERSION, IndexRecord
from services.orthanc.answers import StoredFile
from services.orthanc.beginning import FileBeginnings
from services.orthanc.client import OrthancClient
from services.sync.change_stream import ChangeStream, follow_changes
from services.sync.faults import IndexFaults
from services.sync.reader import Reading, read_entries, reason_of
from services.tasks import Supervisor

_INDEX_VERSION_FIELD = stored_name(InstanceDocument.index_version)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)


_log = logging.getLogger(__name__)


async def index_each(
    indexer: Indexer, entries: Sequence[IndexRecord]
) -> tuple[dict[str, str], set[str]]:
    """Index all entries at once, or each alone when one of them can't be written.

    Args:
        indexer: Writes the entries.
        entries: Of any number of studies.

    Returns:
        Reasons by instance id of the entries that can't be written, such as a record that is too
        large for MongoDB; and the studies that have to be rolled up, see `Indexer.index`.

    Raises:
        DatabaseUnavailable: MongoDB does not answer; the entries may be partly written.
    """
    try:
        return {}, {*await indexer.index(entries)}
    except DatabaseUnavailable:
        raise
    except Exception as exc:  # noqa: BLE001  # one entry must not keep the others out
        _log.warning("a batch can't be indexed, its instances are tried alone", exc_info=exc)
    faults: dict[str, str] = {}
    postponed: set[str] = set()
    for entry in entries:
        fault = await _index_alone(indexer, entry, postponed)
        if fault is not None:
            faults[entry.ids.instance] = fault
    return faults, postponed


async def _index_alone(indexer: Indexer, entry: IndexRecord, postponed: set[str]) -> str | None:
    try:
        postponed |= await indexer.index([entry])
    except DatabaseUnavailable:
        raise
    except Exception as exc:  # noqa: BLE001  # recorded; a retry of the batch would fail again
        _log.exception("instance %s can't be indexed", entry.ids.instance)
        return reason_of(exc)
    return None


_PIPELINE: Sequence[Mapping[str, Any]] = [
    {
        "$match": {
            "$or": [
                {"operationType": {"$in": ["delete", "replace"]}},
                {"updateDescription.updatedFields.revision": {"$exists": True}},
            ]
        }
    },
    {"$project": {"documentKey": 1}},
]
_GATHER_SECONDS = 0.5
"""Time for which removals are collected: a large study then needs few calls of `discard`."""

Discard = Callable[[Collection[str]], None]


@asynccontextmanager
async def following_removals(
    database: AsyncDatabase[dict[str, Any]], discard: Discard, supervisor: Supervisor
) -> AsyncIterator[None]:
    """Report removed and replaced instances while the block runs; needs a replica set.

    Changes are missed if MongoDB is unavailable for longer than its oplog covers.

    Args:
        database: Where the instances are.
        discard: Called with Orthanc's identifiers.
        supervisor: Of the background tasks of this process.
    """
    ended = asyncio.Event()
    instances = database[InstanceDocument.Settings.name]
    async with supervisor.running("removals", lambda: _follow(instances, discard, ended)):
        try:
            yield
        finally:
            # PyMongo often swallows a cancellation within a change stream: the event ends the loop.
            ended.set()


async def _follow(
    instances: AsyncCollection[dict[str, Any]], discard: Discard, ended: asyncio.Event
) -> None:
    wait_ms = round(_GATHER_SECONDS * 1000)

    async def open_stream(resume_after: Any) -> ChangeStream:  # noqa: ANN401  # MongoDB's token
        return await instances.watch(
            _PIPELINE, max_await_time_ms=wait_ms, resume_after=resume_after
        )

    async def step(stream: ChangeStream) -> None:
        if gone := await _gather(stream):
            discard(gone)

    await follow_changes("removals", open_stream, step, ended)


async def _gather(stream: ChangeStream) -> list[str]:
    """Wait a moment, and return the instances that were removed."""
    ends = asyncio.get_running_loop().time() + _GATHER_SECONDS
    gone: list[str] = []
    while (change := await stream.try_next()) is not None:
        gone.append(change["documentKey"]["_id"])
        if asyncio.get_running_loop().time() >= ends:
            break
        # A burst arrives in one answer of MongoDB: yield to the event loop in between.
        await asyncio.sleep(0)
    return gone


@dataclass(frozen=True, slots=True)
class IndexedInstance:
    """An instance as it is indexed."""

    revision: str
    study_id: str
    index_version: int = INDEX_VERSION


@dataclass(frozen=True, slots=True)
class Differences:
    """How the index differs from Orthanc for some instances.

    Attributes:
        missing: In Orthanc with a revision that is not indexed, or not by this version of the code.
        gone: Indexed, and not in Orthanc.
        unchanged_studies: Studies of the instances that agree.
    """

    missing: Sequence[StoredFile]
    gone: Sequence[str]
    unchanged_studies: frozenset[str]

    def __bool__(self) -> bool:
        return bool(self.missing or self.gone)


def find_differences(
    instance_ids: Iterable[str], held: Iterable[StoredFile], indexed: Mapping[str, IndexedInstance]
) -> Differences:
    """Compare what Orthanc holds with what is indexed.

    Args:
        instance_ids: The instances in question.
        held: Those of them that Orthanc has.
        indexed: Those of them that are indexed, by instance id.
    """
    by_id = {file.instance_id: file for file in held}
    missing = [
        file
        for file in by_id.values()
        if (known := indexed.get(file.instance_id)) is None
        or (known.revision, known.index_version) != (file.revision, INDEX_VERSION)
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


BATCH_INSTANCES = 1_000
"""Instances in one call: an answer of a megabyte, written as one batch."""

LANDING_SECONDS = 1.0
"""Longest wait for uploads of this process, which are indexed within a few tenths of a second."""

_ROUNDS = 3
"""Written instances are compared again so often; further changes are left to the next run."""


@dataclass(slots=True)
class Reconciliation:
    """What was done.

    Attributes:
        indexed: Instances that were written, new ones and replaced ones.
        removed: Instances that were removed, because Orthanc does not have them any more.
        faults: Reasons by instance id why instances of Orthanc could not be indexed.
        unchanged_studies: Studies of instances that were indexed already, by a process that may
            have died before the counts were right.
        postponed_studies: Studies of instances of large series, which are not rolled up yet.
    """

    indexed: set[str] = field(default_factory=set)
    removed: set[str] = field(default_factory=set)
    faults: dict[str, str] = field(default_factory=dict)
    unchanged_studies: set[str] = field(default_factory=set)
    postponed_studies: set[str] = field(default_factory=set)

    def add(self, other: "Reconciliation") -> None:
        """Add the results of another batch."""
        self.indexed |= other.indexed
        self.removed |= other.removed
        self.faults |= other.faults
        self.unchanged_studies |= other.unchanged_studies
        self.postponed_studies |= other.postponed_studies


class Reconciler:
    """Asks Orthanc about instances, and updates the index accordingly.

    Attributes:
        faults: What can't be indexed.
    """

    def __init__(
        self,
        orthanc: OrthancClient,
        beginnings: FileBeginnings,
        database: AsyncDatabase[dict[str, Any]],
        indexer: Indexer,
        *,
        limits: WalkLimits,
    ) -> None:
        self._orthanc = orthanc
        self._beginnings = beginnings
        self._instances = database[InstanceDocument.Settings.name]
        self.faults = IndexFaults(database)
        self._indexer = indexer
        self._limits = limits

    async def differences(self, instance_ids: Collection[str]) -> Differences:
        """Compare at most `BATCH_INSTANCES` instances: one call and one command.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        # Orthanc first: an instance that is uploaded in between must not seem to be deleted.
        held = await self._orthanc.stored_files(list(instance_ids))
        return find_differences(instance_ids, held, await self._indexed(instance_ids))

    async def reconcile(self, instance_ids: Iterable[str]) -> Reconciliation:
        """Index the instances that Orthanc has, and remove the others from the index.

        Written instances are compared again, so that no instance is lost that arrives or is deleted
        in between. Repeating it, or doing it in two processes at once, is safe. Instances that an
        upload of this process is about to index are reconciled last, after the upload.

        Args:
            instance_ids: The instances in question, whether they are indexed and exist or not.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        wanted = dict.fromkeys(instance_ids)
        pending = dict.fromkeys(self._indexer.pending.intersection(wanted))
        result = await self._reconcile_batches([id_ for id_ in wanted if id_ not in pending])
        if pending:
            await self._indexer.pending.wait_for(pending, seconds=LANDING_SECONDS)
            result.add(await self._reconcile_batches(pending))
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
        refused, result.postponed_studies = await index_each(self._indexer, reading.entries)
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
            self._beginnings,
            [file for file in missing if file.instance_id not in passed_by],
            limits=self._limits,
        )

    async def _indexed(self, instance_ids: Collection[str]) -> dict[str, IndexedInstance]:
        with translated_database_faults():
            found = await self._instances.find(
                {"_id": {"$in": list(instance_ids)}},
                {"revision": 1, _ORTHANC_STUDY_ID: 1, _INDEX_VERSION_FIELD: 1},
            ).to_list()
        return {
            instance["_id"]: IndexedInstance(
                instance["revision"],
                instance[_ORTHANC_STUDY_ID],
                instance.get(_INDEX_VERSION_FIELD, 0),
            )
            for instance in found
        }
