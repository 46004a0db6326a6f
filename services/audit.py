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
import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from bson import ObjectId
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from models.audit_record import AuditRecord
from models.names import contract_name
from services.auth.roles import Principal
from services.database import translated_database_faults
from services.errors import DatabaseUnavailable, InvalidInput
from services.orthanc.identifiers import orthanc_ids
from services.tasks import Coalescer, Supervisor

OK = "ok"
"""The outcome of what went well; otherwise it is the code of the error."""


class Action(StrEnum):
    """What can be done to patient data."""

    UPLOAD = "upload"
    VIEW = "view"
    MINT = "mint"
    ARCHIVE = "archive"
    DELETE = "delete"
    SYNCHRONIZE = "synchronize"
    REFUSAL = "refusal"
    DROPPED = "dropped"
    """`number_of_objects` refusals were not written one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """What happened.

    Attributes:
        action: What was done or refused.
        outcome: `OK` or the code of an error.
        principal: Who; None when nobody could be identified.
        correlation_id: Of the request, as in the log.
        patient_ids: Orthanc's identifiers of the patients concerned.
        study_ids: Orthanc's identifiers of the studies concerned.
        number_of_objects: How many objects (files, URLs, instances) it stands for.
        client_address: Peer of the connection.
        detail: Name of the field or the route; no patient data.
    """

    action: Action
    principal: Principal | None
    correlation_id: str
    outcome: str = OK
    patient_ids: Sequence[str] = ()
    study_ids: Sequence[str] = ()
    number_of_objects: int = 1
    client_address: str | None = None
    detail: str | None = None


def describe_deed(
    deed: AuditEvent, *, now: datetime, retention: timedelta | None
) -> dict[str, Any]:
    """Turn a deed into the document that is stored, in the form of `AuditRecord`.

    Args:
        deed: What happened.
        now: When, with time zone.
        retention: How long it is kept, None: for ever.
    """
    principal = deed.principal
    fields: dict[str, Any] = {
        "at": now,
        "action": deed.action.value,
        "outcome": deed.outcome,
        "principal": principal.name if principal else None,
        "role": principal.role.name.lower() if principal else None,
        "correlation_id": deed.correlation_id,
        "client_address": deed.client_address,
        "orthanc_patient_ids": sorted(set(deed.patient_ids)),
        "orthanc_study_ids": sorted(set(deed.study_ids)),
        "number_of_objects": deed.number_of_objects,
        "detail": deed.detail,
        "expires_at": None if retention is None else now + retention,
    }
    named = {contract_name(name): value for name, value in fields.items() if value is not None}
    return {"_id": str(ObjectId())} | named


_SPAN = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSearch:
    """Which records; what is None does not narrow.

    Attributes:
        since: Not older than this, with time zone.
        patient_id: PatientID of one of the patients concerned, `""` for files without any.
        action: What was done.
        principal: Name of who did it.
    """

    since: datetime | None = None
    patient_id: str | None = None
    action: Action | None = None
    principal: str | None = None


def parse_since(text: str, *, now: datetime) -> datetime:
    """Read a moment in the past.

    Args:
        text: A span before now as `90s`, `15m`, `36h`, `2d`, `4w`, or an ISO 8601 date or time;
            one without a zone is UTC.
        now: The time, with time zone.

    Raises:
        InvalidInput: It is neither.
    """
    span = _SPAN.fullmatch(text.strip())
    try:
        if span:
            return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
        moment = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError) as exc:
        raise InvalidInput(
            f'"{text}" is no time. Write a span as 2d or 36h, or a date as 2026-01-31.'
        ) from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)


async def read_audit(search: AuditSearch) -> AsyncIterator[AuditRecord]:
    """Read records, newest last, in batches as they are taken.

    Args:
        search: Which.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
    """
    with translated_database_faults():
        async for record in AuditRecord.find(_query(search)).sort("at", "_id"):
            yield record


def _query(search: AuditSearch) -> dict[str, Any]:
    patient = search.patient_id
    query: dict[str, Any] = {
        "at": None if search.since is None else {"$gte": search.since},
        "orthancPatientIds": None if patient is None else orthanc_ids(patient, "", "", "").patient,
        "action": search.action and search.action.value,
        "principal": search.principal,
    }
    return {name: value for name, value in query.items() if value is not None}


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

    async def record(self, deed: AuditEvent) -> None:
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

    async def record_or_queue(self, deed: AuditEvent) -> None:
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

    async def note(self, deed: AuditEvent) -> None:
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

    def _describe(self, deed: AuditEvent) -> Document:
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
        deed = AuditEvent(
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
    database: AsyncDatabase[Document],
    *,
    retention: timedelta | None = None,
    supervisor: Supervisor | None = None,
) -> AsyncIterator[Audit]:
    """Keep the trail while inside; what waits is written before leaving.

    Args:
        database: An open database, with its indexes.
        retention: How long new records are kept, None: for ever.
        supervisor: Of the background tasks of this process; None: one of its own.
    """
    audit = Audit(database, retention=retention)
    try:
        async with (supervisor or Supervisor()).running("audit", audit.follow):
            yield audit
    finally:
        await _write_the_rest(audit)


async def _write_the_rest(audit: Audit) -> None:
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            await audit.aclose()
            await audit.flush()
    except (DatabaseUnavailable, TimeoutError):
        _log.error("%d audit records were lost: MongoDB does not answer", audit.waiting)
