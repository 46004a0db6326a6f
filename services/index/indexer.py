"""Keep MongoDB's index of what Orthanc holds."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from pymongo import WriteConcern
from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, SeriesHeadersDocument
from models.stored import stored_name
from services.database import translated_database_faults, translated_index_faults
from services.errors import DatabaseUnavailable
from services.index.pending import PendingInstances
from services.index.record import IndexRecord, to_stored_precision
from services.index.rollup import roll_up
from services.index.stored_state import load_stored_state
from services.index.writes import (
    Parents,
    delete_instances,
    find_lineages,
    find_parents,
    upsert_instances,
)
from services.tasks import Coalescer

_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)


_MAX_BATCH = 500
"""Entries of one commit: about 1 MB of documents, well below what one command may hold."""

_INDEX_WRITES = WriteConcern(w=1)
"""Not majority, which waits for the disk at each of the five writes of a commit. What a crash or a
fail-over of MongoDB takes back, it takes back together with the later position of the change feed
(one journal, one order), so the feed brings it again."""

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
        self._commits: Coalescer[Sequence[IndexRecord], None] = Coalescer(
            self._commit, max_weight=_MAX_BATCH, weigh=len
        )
        self._one_commit = asyncio.Lock()

    async def index(self, entries: Sequence[IndexRecord]) -> None:
        """Index instances as Orthanc holds them; doing it again changes nothing.

        Returns when their documents and all their parents are written. A caller that is cancelled
        does not undo the work of other callers, and may not undo its own.

        Raises:
            DatabaseUnavailable: It may be half done; index them again.
            RecordRefused: One of them can't be indexed, nor can those beside it in this call.
        """
        if entries:
            await self._commits.submit(entries)

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

    async def _commit(self, batch: Sequence[Sequence[IndexRecord]]) -> list[Exception | None]:
        try:
            await self._write([entry for entries in batch for entry in entries])
        except DatabaseUnavailable:
            raise
        except Exception as exc:  # noqa: BLE001  # raised to the caller whose entries it concerns
            if len(batch) == 1:
                return [exc]
            return [outcome for alone in batch for outcome in await self._commit([alone])]
        return [None] * len(batch)

    async def _write(self, entries: Sequence[IndexRecord]) -> None:
        async with self._one_commit:
            with translated_index_faults():
                now = self._now()
                known = await load_stored_state(self._database, entries)
                written = await upsert_instances(self._database, entries, known, now)
                if written.replaced:
                    self._on_changed(written.replaced)
                await roll_up(
                    self._database,
                    written.parents,
                    now,
                    children_written=written.is_changed,
                    known=known,
                )

    def _now(self) -> datetime:
        return to_stored_precision(self._clock())


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
