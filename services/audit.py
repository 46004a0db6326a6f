"""The audit trail: who did what, when, with which outcome. Records are only added and read.

This program never changes or removes a record; MongoDB deletes records whose retention has ended.
To enforce this, give the server's MongoDB user a role with `find`, `insert` and `createIndex` on
the collection `audit`, without `update` and `remove`.

There are three ways to add a record:

- `Audit.record` writes it before it returns, for changes, before they are answered.
- `Audit.record_or_queue` also writes it before it returns, but puts it into the queue below while
  MongoDB is unavailable: for uploads, whose answer contains the result of each file.
- `Audit.enqueue` puts it into a bounded queue that is written within a second, for views and signed
  URLs. If the queue is full, callers wait, and fail if it stays full: no data is shown without a
  record.

Callers without a credential can cause any number of refusals, so these are counted: the first of a
kind in a minute has its own record, the others share a record at the end of the minute.
"""

import asyncio
import logging
import re
import struct
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any

from beanie import PydanticObjectId
from bson import ObjectId
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError

from models import AuditRecord, StudyDocument
from models.audit_record import pack_id, pack_ids
from models.stored import stored_name
from services.auth.roles import Principal
from services.database import translated_database_faults
from services.dicom.values import clean_identifier
from services.errors import DatabaseUnavailable, InvalidInput, RecordRefused
from services.observability.metrics import AUDIT_LOST
from services.orthanc.identifiers import orthanc_patient_id
from services.tasks import HANGING_SECONDS, Coalescer, Supervisor, heartbeat

_MINTED_URLS = stored_name(AuditRecord.minted_urls)
_ORTHANC_PATIENT_IDS = stored_name(AuditRecord.orthanc_patient_ids)
_ORTHANC_PATIENT_ID = stored_name(StudyDocument.orthanc_patient_id)
_ORTHANC_STUDY_IDS = stored_name(AuditRecord.orthanc_study_ids)
_IDS = {"orthanc_patient_ids", "orthanc_study_ids"}


OK = "ok"
"""The outcome of a success; otherwise it is the code of the error."""


class Action(StrEnum):
    """What can be done to patient data."""

    UPLOAD = "upload"
    VIEW = "view"
    """Also searches without a result, and the signed URLs of the answer."""
    MINT = "mint"
    """Only signed URLs, of patients whose view is recorded already."""
    ARCHIVE = "archive"
    DELETE = "delete"
    SYNCHRONIZE = "synchronize"
    SHARE = "share"
    """A share was made, revoked or, for the first time in an hour, used."""
    LABEL = "label"
    """Labels of a study were set or removed."""
    QUERY = "query"
    """Another archive or worklist was searched."""
    RETRIEVE = "retrieve"
    SEND = "send"
    ANONYMIZE = "anonymize"
    MODIFY = "modify"
    EXPORT = "export"
    BACKUP = "backup"
    """Also the check of one."""
    JOB = "job"
    """A job was cancelled or retried. A job also has a record when it is started, and one when it
    ends."""
    MODALITY = "modality"
    """A modality was declared, changed, removed or tested."""
    WORKLIST = "worklist"
    """An entry of the worklist was made, changed or removed."""
    REFUSAL = "refusal"


@dataclass(slots=True, kw_only=True)
class AuditEvent:
    """An action, described while it is performed.

    Attributes:
        action: What was done or refused.
        principal: Who did it; None if the caller could not be identified.
        correlation_id: Of the request, as in the log.
        client_address: Peer of the connection.
        detail: Name of the fields or the route; no patient data.
        outcome: `OK` or the code of an error.
        patient_ids: Orthanc's identifiers of the patients concerned.
        study_ids: Orthanc's identifiers of the studies concerned.
        number_of_objects: Number of objects (files, instances, refusals).
        minted_urls: Number of signed URLs in the answer; None: none.
        searched: The search as typed; None: it was not a search.
    """

    action: Action
    principal: Principal | None
    correlation_id: str
    client_address: str | None = None
    detail: str | None = None
    outcome: str = OK
    patient_ids: set[str] = field(default_factory=set)
    study_ids: set[str] = field(default_factory=set)
    number_of_objects: int = 1
    minted_urls: int | None = None
    searched: str | None = None


def describe_event(
    event: AuditEvent, *, now: datetime, retention: timedelta | None
) -> dict[str, Any]:
    """Return the document that is stored, in the form of `AuditRecord`.

    Args:
        event: What happened.
        now: When, with time zone.
        retention: How long it is kept; None: it is never deleted.
    """
    principal = event.principal
    document: dict[str, Any] = AuditRecord.model_construct(
        id=_object_id(now),
        at=now,
        action=event.action.value,
        outcome=event.outcome,
        principal=principal.name if principal else None,
        role=principal.role.name.lower() if principal else None,
        correlation_id=event.correlation_id,
        client_address=event.client_address,
        number_of_objects=event.number_of_objects,
        minted_urls=event.minted_urls,
        searched=event.searched,
        detail=event.detail,
        expires_at=None if retention is None else now + retention,
    ).model_dump(by_alias=True, exclude_none=True, exclude=_IDS)
    if event.patient_ids:
        document[_ORTHANC_PATIENT_IDS] = [pack_id(one) for one in sorted(event.patient_ids)]
    if event.study_ids:
        document[_ORTHANC_STUDY_IDS] = pack_ids(sorted(event.study_ids))
    return document


def _object_id(now: datetime) -> PydanticObjectId:
    """Make an identifier that begins with the second of a time."""
    return PydanticObjectId(struct.pack(">I", int(now.timestamp())) + ObjectId().binary[4:])


_SPAN = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSearch:
    """Criteria of records; None matches all.

    Attributes:
        since: Not older than this, with time zone.
        until: Older than this, with time zone.
        patient_id: PatientID of one of the patients concerned, `""` for files without any.
        action: What was done.
        principal: Name of who did it.
    """

    since: datetime | None = None
    until: datetime | None = None
    patient_id: str | None = None
    action: Action | None = None
    principal: str | None = None


def parse_since(text: str, *, now: datetime) -> datetime:
    """Read a time in the past.

    Args:
        text: A duration before now such as `90s`, `15m`, `36h`, `2d`, `4w`, or an ISO 8601 date or
            time; UTC if it has no zone.
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
            f'"{text}" is not a time. Write a duration as 2d or 36h, or a date as 2026-01-31.'
        ) from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)


async def read_audit(search: AuditSearch) -> AsyncIterator[AuditRecord]:
    """Read records, newest last, in batches.

    Args:
        search: Which records.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
    """
    with translated_database_faults():
        async for record in AuditRecord.find(_query(search)).sort(*_order(search)):
            yield record


def _order(search: AuditSearch) -> list[str]:
    """Return the order, oldest first, so that MongoDB uses the index that the search needs.

    In the order of `_id` it might read the whole trail for the records of one patient.
    """
    return ["_id"] if search.patient_id is None else ["at", "_id"]


def _query(search: AuditSearch) -> dict[str, Any]:
    patient = search.patient_id
    patient_id = None if patient is None else orthanc_patient_id(clean_identifier(patient))
    query: dict[str, Any] = {
        **_period(search),
        # Both forms in which it is stored.
        _ORTHANC_PATIENT_IDS: patient_id and {"$in": [pack_id(patient_id), patient_id]},
        "action": search.action and search.action.value,
        "principal": search.principal,
    }
    if search.action is Action.MINT:
        # A view and the URLs of the same answer have one record.
        query |= {"action": None, "$or": [{"action": "mint"}, {_MINTED_URLS: {"$gt": 0}}]}
    return {name: value for name, value in query.items() if value is not None}


def _period(search: AuditSearch) -> dict[str, Any]:
    """Return the condition of time: the identifier begins with the second, and has the index."""
    ids: dict[str, Any] = {}
    times: dict[str, Any] = {}
    if search.since is not None:
        ids["$gte"], times["$gte"] = ObjectId.from_datetime(search.since), search.since
    if search.until is not None:
        after = search.until + timedelta(seconds=1)
        ids["$lt"], times["$lt"] = ObjectId.from_datetime(after), search.until
    return {"_id": ids or None, "at": times or None}


_log = logging.getLogger(__name__)

_QUEUE_SIZE = 10_000
"""Most records that wait; at 500 bytes each, 5 MB."""
_BATCH_SIZE = 500
_FLUSH_SECONDS = 0.5
_WAIT_SECONDS = 5.0
"""Longest wait for a place in the queue, and for the last records when the server stops."""
_DUPLICATE_KEY = 11000

_SLOT_SECONDS = 60.0
"""How long refusals without a credential are counted before the counts are written."""
_MOST_KINDS = 50
"""Most kinds of refusals that are counted separately in one slot, so that callers without a
credential cause at most two records a second. A kind is a route or field, a code and an address."""

Document = dict[str, Any]

_Kind = tuple[str | None, str, str | None]


class RefusalCounts:
    """Refusals of callers without a credential, counted in slots of a minute.

    Args:
        monotonic: A clock that never goes back, in seconds.
    """

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._begun = monotonic()
        self._counted: dict[_Kind, AuditEvent] = {}

    @property
    def is_due(self) -> bool:
        """Whether the slot is over."""
        return self._monotonic() - self._begun >= _SLOT_SECONDS

    def is_first(self, event: AuditEvent) -> bool:
        """Return whether a refusal is the first of its kind in this slot, and start its count.

        The first one must have its own record, or be added.
        """
        kind = _kind_of(event)
        if kind in self._counted or len(self._counted) >= _MOST_KINDS:
            return False
        self._counted[kind] = replace(event, number_of_objects=0, correlation_id="-")
        return True

    def add(self, event: AuditEvent) -> None:
        """Count refusals; if there are too many kinds, further ones are counted together."""
        counted = self._counted.get(_kind_of(event))
        if counted is None:
            others = replace(
                event,
                detail="(others)",
                outcome="(various)",
                client_address=None,
                number_of_objects=0,
                correlation_id="-",
            )
            counted = self._counted.setdefault(_kind_of(others), others)
        counted.number_of_objects += event.number_of_objects

    def drain(self) -> list[AuditEvent]:
        """End the slot; return the counts of refusals other than the first ones."""
        counted = [event for event in self._counted.values() if event.number_of_objects]
        self._counted = {}
        self._begun = self._monotonic()
        return counted


def _kind_of(event: AuditEvent) -> _Kind:
    return event.detail, event.outcome, event.client_address


@dataclass(frozen=True, slots=True)
class _Waits:
    """A record that could not be written, and is in the queue."""

    reason: Exception

    def __str__(self) -> str:
        detail = self.reason.detail if isinstance(self.reason, DatabaseUnavailable) else ""
        return detail or type(self.reason).__name__


class Audit:
    """Writes the trail. Make one with `open_audit`.

    Args:
        database: Where the collection is.
        retention: How long new records are kept; None: they are never deleted.
        queue_size: Records that may wait to be written.
        now: The clock, with time zone.
        monotonic: A clock that never goes back, in seconds.
    """

    def __init__(
        self,
        database: AsyncDatabase[Document],
        *,
        retention: timedelta | None = None,
        queue_size: int = _QUEUE_SIZE,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._collection = database[AuditRecord.Settings.name]
        self._retention = retention
        self._now = now
        self._queue: asyncio.Queue[Document] = asyncio.Queue(queue_size)
        self._unwritten: list[Document] = []
        self._recording: Coalescer[Document, _Waits | None] = Coalescer(
            self._insert_together, max_weight=_BATCH_SIZE
        )
        self._strangers = RefusalCounts(monotonic)

    async def record(self, event: AuditEvent) -> None:
        """Write a record before returning.

        Raises:
            DatabaseUnavailable: It can't be written now; it is written as soon as it can be.
            Exception: Any other error of writing it, likewise.
        """
        waits = await self._recording.submit(self._describe(await self._completed(event)))
        if waits is not None:
            raise waits.reason

    async def record_or_queue(self, event: AuditEvent) -> None:
        """Write a record before returning, or as soon as MongoDB is available again.

        Raises:
            DatabaseUnavailable: MongoDB is unavailable, the queue is full and the record is lost.
        """
        waits = await self._recording.submit(self._describe(await self._completed(event)))
        if waits is not None:
            _log.warning("an audit record waits: %s", waits)

    async def enqueue(self, event: AuditEvent) -> None:
        """Queue a record for the next second; refusals without a credential are counted.

        Raises:
            DatabaseUnavailable: The queue is full and stays so.
        """
        if event.action is not Action.REFUSAL or event.principal is not None:
            await self._enqueue(self._describe(await self._completed(event)))
        elif self._strangers.is_first(event) and not self._queue.full():
            self._queue.put_nowait(self._describe(event))
        else:
            self._strangers.add(event)

    async def _completed(self, event: AuditEvent) -> AuditEvent:
        """Add the patients of the studies to an event without patients, to find it by patient.

        They are unknown while MongoDB is unavailable, and for studies that are no longer indexed.
        """
        if event.study_ids and not event.patient_ids:
            studies = self._database[StudyDocument.Settings.name]
            found = studies.find({"_id": {"$in": sorted(event.study_ids)}}, (_ORTHANC_PATIENT_ID,))
            with suppress(DatabaseUnavailable), translated_database_faults():
                event.patient_ids = {study[_ORTHANC_PATIENT_ID] async for study in found}
        return event

    async def follow(self) -> None:
        """Write queued records, until cancelled."""
        with heartbeat("audit") as alive:
            while True:
                alive.beat(_FLUSH_SECONDS + HANGING_SECONDS)
                await asyncio.sleep(_FLUSH_SECONDS)
                if self._strangers.is_due:
                    self._enqueue_counts()
                try:
                    await self.flush()
                except DatabaseUnavailable as exc:
                    reason = exc.detail or exc.message
                    _log.warning("%d audit records wait: %s", self.waiting, reason)

    async def flush(self) -> None:
        """Write all records that wait.

        Raises:
            DatabaseUnavailable: Nothing is lost; the next call tries again.
        """
        while self._unwritten or not self._queue.empty():
            while len(self._unwritten) < _BATCH_SIZE and not self._queue.empty():
                self._unwritten.append(self._queue.get_nowait())
            try:
                await self._insert(self._unwritten)
            except RecordRefused:
                await self._insert_each(self._unwritten)
            self._unwritten = []

    async def aclose(self) -> None:
        """Wait for records that are being written; the counts of refusals are left in the queue."""
        await self._recording.aclose()
        self._enqueue_counts()

    @property
    def waiting(self) -> int:
        """Number of records that are not written yet."""
        return self._queue.qsize() + len(self._unwritten)

    def _describe(self, event: AuditEvent) -> Document:
        return describe_event(event, now=self._now(), retention=self._retention)

    async def _enqueue(self, document: Document) -> None:
        try:
            async with asyncio.timeout(_WAIT_SECONDS):
                await self._queue.put(document)
        except TimeoutError as exc:
            AUDIT_LOST.inc()
            _log.error("An audit record was lost: the queue is full")
            raise DatabaseUnavailable(detail="the audit queue is full") from exc

    def _enqueue_counts(self) -> None:
        """End the slot; if the queue is full, its counts are added to the next one."""
        counted = self._strangers.drain()
        for event in counted:
            if self._queue.full():
                self._strangers.add(event)
            else:
                self._queue.put_nowait(self._describe(event))

    async def _insert_together(
        self, documents: Sequence[Document]
    ) -> Sequence["_Waits | Exception | None"]:
        """Write simultaneous records with one command, or leave them in the queue.

        The actions were performed, so their records must be written after any error, and also if
        their callers were cancelled. A record that is already written is recognized by its `_id`.
        """
        try:
            await self._insert(documents)
        except Exception as exc:  # noqa: BLE001  # the callers get it
            return [await self._queued(document, exc) for document in documents]
        return [None] * len(documents)

    async def _queued(self, document: Document, reason: Exception) -> "_Waits | Exception":
        try:
            await self._enqueue(document)
        except DatabaseUnavailable as exc:
            return exc
        return _Waits(reason)

    async def _insert_each(self, documents: Sequence[Document]) -> None:
        """Write records one by one, because one that MongoDB refuses must not affect the others."""
        for document in documents:
            try:
                await self._insert([document])
            except RecordRefused as exc:
                action, who = document.get("action"), document.get("principal")
                _log.error("An audit record was refused (%s): %s by %s", exc.detail, action, who)

    async def _insert(self, documents: Sequence[Document]) -> None:
        with translated_database_faults():
            try:
                await self._collection.insert_many(documents, ordered=False)
            except BulkWriteError as exc:
                faults = exc.details.get("writeErrors", [])
                if not faults or any(fault.get("code") != _DUPLICATE_KEY for fault in faults):
                    raise
                # An earlier attempt, whose answer was lost, had written these.


@asynccontextmanager
async def open_audit(
    database: AsyncDatabase[Document],
    *,
    retention: timedelta | None = None,
    supervisor: Supervisor | None = None,
) -> AsyncIterator[Audit]:
    """Open the audit trail; records that wait are written before it is closed.

    Args:
        database: An open database, with its indexes.
        retention: How long new records are kept; None: they are never deleted.
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
        AUDIT_LOST.inc(audit.waiting)
        _log.error("%d audit records were lost: MongoDB does not answer", audit.waiting)
