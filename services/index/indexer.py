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
    find_parents,
    upsert_instances,
)
from services.tasks import Coalescer

_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_NUMBER_OF_FRAMES = stored_name(InstanceDocument.number_of_frames)
_NOT_RENDERABLE_REASON = stored_name(InstanceDocument.not_renderable_reason)
_NUMBER_OF_INSTANCES = stored_name(SeriesDocument.number_of_instances)


_MAX_BATCH = 500
"""Entries of one commit: about 1 MB of documents, well below the limit of one command."""

_INDEX_WRITES = WriteConcern(w=1)
"""Not `majority`, which waits for the disk at each of the five writes of a commit. If a crash or a
fail-over of MongoDB rolls these writes back, it also rolls back the position of the change feed,
which is written after them, so the follower reads the same changes again."""

LARGE_SERIES = 5_000
"""Commits do not roll up series with more instances. A roll-up reads all instances of a series: 3
ms for 100, 0.3 s for 20,000, so uploading a large series one file at a time would take O(n^2)."""

_MAX_REMOVED = 5_000
"""Ids of one command: 44 bytes each."""


class Indexer:
    """Writes instances and rolls up their parents.

    Simultaneous callers share one commit, so that 100 uploads at once cost little more than one.
    Several processes may index into one database at the same time.

    Attributes:
        pending: The instances that uploads of this process are about to index.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        on_changed: Callable[[Iterable[str]], None] = lambda _: None,
        on_indexed: Callable[[Iterable[IndexRecord]], None] = lambda _: None,
    ) -> None:
        """Make an indexer; it writes only when it is called.

        Args:
            database: MongoDB.
            clock: Returns the current time in UTC.
            on_changed: Called with the ids of instances that were replaced or removed, to discard
                what this process caches of them, such as rendered frames.
            on_indexed: Called with the records that were not indexed in this revision before.
        """
        self._database = database.with_options(write_concern=_INDEX_WRITES)
        self.pending = PendingInstances()
        self._clock = clock
        self._on_changed = on_changed
        self._on_indexed = on_indexed
        self._commits: Coalescer[Sequence[IndexRecord], frozenset[str]] = Coalescer(
            self._commit, max_weight=_MAX_BATCH, weigh=len
        )
        self._one_commit = asyncio.Lock()

    async def index(self, entries: Sequence[IndexRecord]) -> frozenset[str]:
        """Index instances as Orthanc holds them; repeating it changes nothing.

        Returns when their documents and all their parents are written. If a caller is cancelled,
        its instances may still be written; other callers are not affected.

        Returns:
            Studies that still have to be rolled up, because these instances belong to a series with
            more than `LARGE_SERIES` instances. The follower of the change feed does this once for
            each page of changes, so uploads can ignore it.

        Raises:
            DatabaseUnavailable: The entries may be partly written; index them again.
            RecordRefused: One of the entries can't be indexed; index the others without it.
        """
        return await self._commits.submit(entries) if entries else frozenset()

    async def remove(self, instance_ids: Sequence[str]) -> int:
        """Remove instances, and the series, studies and patients that become empty.

        Args:
            instance_ids: Orthanc's ids; unknown ones are ignored.

        Returns:
            The number of removed instances.

        Raises:
            DatabaseUnavailable: They may be partly removed; the comparison repairs their studies.
        """
        removed = 0
        for start in range(0, len(instance_ids), _MAX_REMOVED):
            removed += await self._remove(instance_ids[start : start + _MAX_REMOVED])
        return removed

    async def aclose(self) -> None:
        """Wait for the writes in progress."""
        await self._commits.aclose()

    async def _remove(self, instance_ids: Sequence[str]) -> int:
        async with self._one_commit:
            with translated_database_faults():
                parents = await find_parents(self._database, instance_ids)
                removed = await delete_instances(self._database, instance_ids)
                # Prepared headers contain attributes of the deleted files.
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
        """Write instances and roll up; return the studies that still have to be rolled up."""
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
                self._on_indexed(entry for entry in entries if not _is_known(entry, known))
                return frozenset(lineage.study for lineage in large)

    def _now(self) -> datetime:
        return to_stored_precision(self._clock())


def _is_known(entry: IndexRecord, known: StoredState) -> bool:
    return known.instances.get(entry.ids.instance, {}).get("revision") == entry.revision


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
    """Separate the lineages of large series from the others."""
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
    on_indexed: Callable[[Iterable[IndexRecord]], None] = lambda _: None,
) -> AsyncIterator[Indexer]:
    """Open an indexer that completes its writes before it closes; see `Indexer`."""
    indexer = Indexer(database, on_changed=on_changed, on_indexed=on_indexed)
    try:
        yield indexer
    finally:
        await indexer.aclose()
