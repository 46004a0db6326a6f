"""Keep MongoDB's index of what Orthanc holds."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from pymongo import WriteConcern
from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, SeriesDocument, SeriesHeadersDocument
from models.stored import stored_name
from services.database import translated_database_faults, translated_index_faults
from services.errors import DatabaseUnavailable
from services.index.pending import PendingInstances
from services.index.record import IndexRecord, to_stored_precision
from services.index.rollup import roll_up
from services.index.stored_state import StoredState, load_stored_state
from services.index.writes import (
    Lineage,
    Parents,
    delete_instances,
    find_lineages,
    find_parents,
    upsert_instances,
)
from services.tasks import Coalescer

_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_NUMBER_OF_FRAMES = stored_name(InstanceDocument.number_of_frames)
_NOT_RENDERABLE_REASON = stored_name(InstanceDocument.not_renderable_reason)
_NUMBER_OF_INSTANCES = stored_name(SeriesDocument.number_of_instances)


_MAX_BATCH = 500
"""Entries of one commit: about 1 MB of documents, well below what one command may hold."""

_INDEX_WRITES = WriteConcern(w=1)
"""Not majority, which waits for the disk at each of the five writes of a commit. What a crash or a
fail-over of MongoDB takes back, it takes back together with the later position of the change feed
(one journal, one order), so the feed brings it again."""

LARGE_SERIES = 5_000
"""Instances of a series from which on commits do not roll it up. A roll-up reads them all: 3 ms for
100 instances, 0.3 s for 20,000, and single uploads into such a series would take n^2."""

_MAX_REMOVED = 5_000
"""Ids of one command: 44 bytes each."""


class Indexer:
    """Writes instances and rolls their parents up.

    Callers that come at the same time share one commit, so that 100 uploads at once cost little
    more than one. Several processes may index into one database at the same time.

    Attributes:
        pending: The instances that uploads of this process are about to index.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_changed: Callable[[Iterable[str]], None] = lambda _: None,
    ) -> None:
        """Make an indexer; it writes only when it is called.

        Args:
            database: MongoDB.
            clock: The time that is written, in UTC.
            on_changed: Forgets what this process keeps of instances that were replaced or removed,
                such as rendered frames.
        """
        self._database = database.with_options(write_concern=_INDEX_WRITES)
        self.pending = PendingInstances()
        self._clock = clock
        self._on_changed = on_changed
        self._commits: Coalescer[Sequence[IndexRecord], frozenset[str]] = Coalescer(
            self._commit, max_weight=_MAX_BATCH, weigh=len
        )
        self._one_commit = asyncio.Lock()

    async def index(self, entries: Sequence[IndexRecord]) -> frozenset[str]:
        """Index instances as Orthanc holds them; doing it again changes nothing.

        Returns when their documents and all their parents are written. A caller that is cancelled
        does not undo the work of other callers, and may not undo its own.

        Returns:
            Studies that have to be rolled up again, because these instances belong to a series of
            more than `LARGE_SERIES`. The follower of the change feed does it for every arrival,
            once for each page of changes, so uploads need not.

        Raises:
            DatabaseUnavailable: It may be half done; index them again.
            RecordRefused: One of them can't be indexed, nor can those beside it in this call.
        """
        return await self._commits.submit(entries) if entries else frozenset()

    async def remove(self, instance_ids: Sequence[str]) -> int:
        """Forget instances, and the series, studies and patients that they leave empty.

        Args:
            instance_ids: Orthanc's ids; unknown ones count as forgotten already.

        Returns:
            How many instances went.

        Raises:
            DatabaseUnavailable: It may be half done; `recount` the studies.
        """
        removed = 0
        for start in range(0, len(instance_ids), _MAX_REMOVED):
            removed += await self._remove(instance_ids[start : start + _MAX_REMOVED])
        return removed

    async def recount(self, study_ids: Sequence[str]) -> None:
        """Recompute the parents of studies that a crash left half written.

        Raises:
            DatabaseUnavailable: Repeat it.
        """
        async with self._one_commit:
            with translated_database_faults():
                parents = Parents.of(await find_lineages(self._database, study_ids))
                await roll_up(self._database, parents, self._now(), children_written=True)

    async def aclose(self) -> None:
        """Wait for what is being written."""
        await self._commits.aclose()

    async def _remove(self, instance_ids: Sequence[str]) -> int:
        async with self._one_commit:
            with translated_database_faults():
                parents = await find_parents(self._database, instance_ids)
                removed = await delete_instances(self._database, instance_ids)
                # What was made of their files must not outlive them.
                await self._database[SeriesHeadersDocument.Settings.name].delete_many(
                    {_ORTHANC_SERIES_ID: {"$in": list(parents.series)}}
                )
                self._on_changed(instance_ids)
                await roll_up(self._database, parents, self._now(), children_written=True)
        return removed

    async def _commit(
        self, batch: Sequence[Sequence[IndexRecord]]
    ) -> list[Exception | frozenset[str]]:
        try:
            postponed = await self._write([entry for entries in batch for entry in entries])
        except DatabaseUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001  # raised to the caller whose entries it concerns
            if len(batch) == 1:
                return [exc]
            return [outcome for alone in batch for outcome in await self._commit([alone])]
        return [postponed] * len(batch)

    async def _write(self, entries: Sequence[IndexRecord]) -> frozenset[str]:
        """Write instances and roll up; return the studies whose roll-up is left to others."""
        async with self._one_commit:
            with translated_index_faults():
                now = self._now()
                known = await load_stored_state(self._database, entries)
                written = await upsert_instances(self._database, entries, known, now)
                if written.replaced:
                    self._on_changed(written.replaced)
                large, others = _parted(written.lineages, known)
                await roll_up(
                    self._database,
                    Parents.of(others),
                    now,
                    children_written=written.is_changed,
                    known=known,
                )
                return frozenset(lineage.study for lineage in large)

    def _now(self) -> datetime:
        return to_stored_precision(self._clock())


async def mark_not_renderable(
    database: AsyncDatabase[dict[str, Any]], instance_id: str, revision: str, reason: str
) -> None:
    """Say of an instance of one frame that it can't be shown, and roll its parents up.

    Its header promised a picture and its pixel data have none: only decoding can tell.

    Args:
        database: MongoDB.
        instance_id: Orthanc's id; one that is not indexed any more changes nothing.
        revision: The one that was decoded; nothing changes where another one is indexed.
        reason: A sentence for users.

    Raises:
        DatabaseUnavailable: It may be half done; the next one who asks for the picture repeats it.
    """
    instances = database[InstanceDocument.Settings.name]
    with translated_database_faults():
        parents = await find_parents(database, [instance_id])
        await instances.update_one(
            {"_id": instance_id, "revision": revision, _NUMBER_OF_FRAMES: 1},
            {"$set": {_NUMBER_OF_FRAMES: 0, _NOT_RENDERABLE_REASON: reason}},
        )
        now = to_stored_precision(datetime.now(UTC))
        await roll_up(database, parents, now, children_written=True)


def _parted(lineages: Iterable[Lineage], known: StoredState) -> tuple[list[Lineage], list[Lineage]]:
    """Part the lineages of large series from the others."""
    large: list[Lineage] = []
    others: list[Lineage] = []
    for lineage in lineages:
        series = known.series.get(lineage.series or "", {})
        is_large = series.get(_NUMBER_OF_INSTANCES, 0) > LARGE_SERIES
        (large if is_large else others).append(lineage)
    return large, others


@asynccontextmanager
async def open_indexer(
    database: AsyncDatabase[dict[str, Any]],
    *,
    on_changed: Callable[[Iterable[str]], None] = lambda _: None,
) -> AsyncIterator[Indexer]:
    """Make an indexer that finishes what it began before it closes; see `Indexer`."""
    indexer = Indexer(database, on_changed=on_changed)
    try:
        yield indexer
    finally:
        await indexer.aclose()
