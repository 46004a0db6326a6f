"""The audit trail: who did what, when, with which outcome. Records are added and read, no more.

Nothing in this program changes or removes a record; MongoDB drops those that were written with an
end of their retention. To hold the server itself to that, let its MongoDB user have a role with
`find`, `insert` and `createIndex` on the collection `audit`, without `update` and `remove`.

Three ways in:

- `Audit.record` writes before it returns: for what changes something, ahead of its answer.
- `Audit.record_or_queue` writes before it returns as well, but leaves the record in the queue below
  while MongoDB is away: for uploads, which tell each sender what became of each file.
- `Audit.note` hands over to a bounded queue that is written within a second: for views and minted
  URLs. A full queue makes callers wait, and fails them when it stays full: nothing is shown that
  is not written down. Refusals are the exception: strangers can cause any number of them, so
  beyond the queue they are counted, and the count is written.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from models.audit_record import AuditRecord
from services.coalescing import Coalescer
from services.database import translated_database_faults
from services.deeds import Action, Deed, describe_deed
from services.errors import DatabaseUnavailable
from services.stopping import stop

_log = logging.getLogger(__name__)

_QUEUE_SIZE = 10_000
"""Records that wait; at 500 bytes each, 5 MB."""
_BATCH_SIZE = 500
_FLUSH_SECONDS = 0.5
_WAIT_SECONDS = 5.0
"""Longest wait for room in the queue, and for the last records when the server stops."""
_DUPLICATE_KEY = 11000

Document = dict[str, Any]


class Audit:
    """Writes the trail. Make one with `open_audit`.

    Args:
        database: Where the collection is.
        retention: How long new records are kept, None: for ever.
        queue_size: Records that may wait to be written.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        database: AsyncDatabase[Document],
        *,
        retention: timedelta | None = None,
        queue_size: int = _QUEUE_SIZE,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._collection = database[AuditRecord.Settings.name]
        self._retention = retention
        self._now = now
        self._queue: asyncio.Queue[Document] = asyncio.Queue(queue_size)
        self._unwritten: list[Document] = []
        self._recording: Coalescer[Document, None] = Coalescer(
            self._insert_together, max_weight=_BATCH_SIZE
        )
        self._dropped_refusals = 0

    async def record(self, deed: Deed) -> None:
        """Write one deed down before returning.

        Raises:
            DatabaseUnavailable: It can't be written now; it is written as soon as it can be.
        """
        document = self._describe(deed)
        try:
            await self._recording.submit(document)
        except DatabaseUnavailable:
            # The deed is done: its record must follow, with the same _id if it is there already.
            await self._enqueue(document)
            raise

    async def record_or_queue(self, deed: Deed) -> None:
        """Write one deed down before returning, or as soon as MongoDB is back.

        Raises:
            DatabaseUnavailable: MongoDB is away, the queue is full and the record is lost.
        """
        document = self._describe(deed)
        try:
            await self._recording.submit(document)
        except DatabaseUnavailable as exc:
            await self._enqueue(document)
            _log.warning("an audit record waits: %s", exc.detail or exc.message)

    async def note(self, deed: Deed) -> None:
        """Hand one deed over to be written within a second.

        Raises:
            DatabaseUnavailable: The queue is full and stays so; a refusal is counted instead.
        """
        if deed.action is not Action.REFUSAL:
            await self._enqueue(self._describe(deed))
        elif self._queue.full():
            self._dropped_refusals += 1
        else:
            self._queue.put_nowait(self._describe(deed))

    async def follow(self) -> None:
        """Write what is handed over, until cancelled."""
        while True:
            await asyncio.sleep(_FLUSH_SECONDS)
            try:
                await self.flush()
            except DatabaseUnavailable as exc:
                _log.warning("%d audit records wait: %s", self.waiting, exc.detail or exc.message)

    async def flush(self) -> None:
        """Write everything that waits.

        Raises:
            DatabaseUnavailable: Nothing is lost; the next call tries again.
        """
        self._note_dropped_refusals()
        while self._unwritten or not self._queue.empty():
            while len(self._unwritten) < _BATCH_SIZE and not self._queue.empty():
                self._unwritten.append(self._queue.get_nowait())
            await self._insert(self._unwritten)
            self._unwritten = []

    async def aclose(self) -> None:
        """Wait for what is being recorded."""
        await self._recording.aclose()

    @property
    def waiting(self) -> int:
        """How many records are not written yet."""
        return self._queue.qsize() + len(self._unwritten)

    def _describe(self, deed: Deed) -> Document:
        return describe_deed(deed, now=self._now(), retention=self._retention)

    async def _enqueue(self, document: Document) -> None:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._queue.put(document)
        except TimeoutError as exc:
            _log.error("An audit record was lost: the queue is full")
            raise DatabaseUnavailable(detail="the audit queue is full") from exc

    def _note_dropped_refusals(self) -> None:
        if not self._dropped_refusals or self._queue.full():
            return
        deed = Deed(
            action=Action.DROPPED,
            principal=None,
            correlation_id="-",
            number_of_objects=self._dropped_refusals,
            detail="refusals beyond the queue",
        )
        self._dropped_refusals = 0
        self._queue.put_nowait(self._describe(deed))

    async def _insert_together(self, documents: Sequence[Document]) -> Sequence[None]:
        """Write what is recorded at the same time by one command."""
        await self._insert(documents)
        return [None] * len(documents)

    async def _insert(self, documents: Sequence[Document]) -> None:
        with translated_database_faults():
            try:
                await self._collection.insert_many(documents, ordered=False)
            except BulkWriteError as exc:
                faults = exc.details.get("writeErrors", [])
                if not faults or any(fault.get("code") != _DUPLICATE_KEY for fault in faults):
                    raise
                # A try whose answer got lost had written these.


@asynccontextmanager
async def open_audit(
    database: AsyncDatabase[Document], *, retention: timedelta | None = None
) -> AsyncIterator[Audit]:
    """Keep the trail while inside; what waits is written before leaving.

    Args:
        database: An open database, with its indexes.
        retention: How long new records are kept, None: for ever.
    """
    audit = Audit(database, retention=retention)
    following = asyncio.create_task(audit.follow())
    try:
        yield audit
    finally:
        await stop(following)
        await _write_the_rest(audit)


async def _write_the_rest(audit: Audit) -> None:
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            await audit.aclose()
            await audit.flush()
    except (DatabaseUnavailable, TimeoutError):
        _log.error("%d audit records were lost: MongoDB does not answer", audit.waiting)
