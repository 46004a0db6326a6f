"""Changes of studies, sent to all listeners, whichever process wrote them.

One change stream on the collection `studies` per process, open only while there are
listeners, fanned out to a bounded queue per listener.
"""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure

from models import DELETIONS_KEPT_DAYS, DeletedStudyDocument, FormerLabel, StudyDocument
from models.stored import stored_name
from services.auth.scope import ALL, Scope
from services.database import translated_database_faults
from services.errors import Error, InvalidInput, LimitExceeded
from services.observability.metrics import EVENTS_DROPPED
from services.sync.change_stream import ChangeStream, SharedStream
from services.tasks import Supervisor

_STUDY_INSTANCE_UID = stored_name(StudyDocument.study_instance_uid)
_UPDATED_AT = stored_name(StudyDocument.updated_at)
_CREATED_AT = stored_name(StudyDocument.created_at)
_DELETED_AT = stored_name(DeletedStudyDocument.deleted_at)
_FORMER_LABELS = stored_name(StudyDocument.former_labels)
_REMOVED_AT = stored_name(FormerLabel.removed_at)


BURST_SECONDS = 1.0
"""Shortest time between two events of one study: 500 arriving images redraw a worklist once."""


class StudyChangeKind(Enum):
    """What happened to a study."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    STABLE = "STABLE"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class StudyChange:
    """One event.

    Attributes:
        study_id: Orthanc's id of the study.
        document: The stored study; None if it was deleted.
        labels: Of the study; if it was deleted, its last ones.
        labels_before: Its labels before the change, if MongoDB has them.
    """

    kind: StudyChangeKind
    study_id: str
    study_instance_uid: str
    document: Mapping[str, Any] | None
    labels: tuple[str, ...] = ()
    labels_before: tuple[str, ...] | None = None


@dataclass(slots=True)
class _Tracked:
    """A study that changed recently; times are those of the caller's clock, in seconds."""

    change: StudyChange
    changed_at: float
    is_pending: bool
    sent_at: float | None = None


class EventDebouncer:
    """Delays changes until they are due. The clock is an argument."""

    def __init__(self, stable_seconds: float) -> None:
        self._stable_seconds = stable_seconds
        self._tracked: dict[str, _Tracked] = {}

    def add(self, change: StudyChange | None, at: float) -> None:
        """Add a change.

        Args:
            change: What happened; None is ignored.
            at: Now, in seconds.
        """
        if change is None:
            return
        known = self._tracked.get(change.study_id)
        sent_at = known.sent_at if known else None
        if known and known.is_pending:
            change = _merged(known.change, change)
        self._tracked[change.study_id] = _Tracked(change, at, is_pending=True, sent_at=sent_at)

    def expect_stable(self, change: StudyChange, changed_at: float) -> None:
        """Add a study that changed before there were listeners, to send only STABLE.

        Args:
            change: The study as it is.
            changed_at: When it changed, in seconds of the same clock.
        """
        self._tracked.setdefault(change.study_id, _Tracked(change, changed_at, is_pending=False))

    def due(self, at: float) -> list[StudyChange]:
        """Return the events that are due, each once.

        Args:
            at: Now, in seconds.
        """
        events = []
        for study_id, tracked in tuple(self._tracked.items()):
            if tracked.is_pending:
                if tracked.sent_at is None or at - tracked.sent_at >= BURST_SECONDS:
                    tracked.is_pending = False
                    tracked.sent_at = at
                    events.append(tracked.change)
                    tracked.change = replace(tracked.change, labels_before=None)
                    if tracked.change.kind is StudyChangeKind.DELETED:
                        del self._tracked[study_id]
            elif at - tracked.changed_at >= self._stable_seconds:
                events.append(replace(tracked.change, kind=StudyChangeKind.STABLE))
                del self._tracked[study_id]
        return events


def _merged(held_back: StudyChange, newer: StudyChange) -> StudyChange:
    """Return the one change that stands for two, the first of which was not sent."""
    if held_back.labels_before is not None:
        newer = replace(newer, labels_before=held_back.labels_before)
    if newer.kind is StudyChangeKind.UPDATED and held_back.kind is StudyChangeKind.CREATED:
        return replace(newer, kind=StudyChangeKind.CREATED)
    if newer.kind is StudyChangeKind.CREATED and held_back.kind is StudyChangeKind.DELETED:
        # Deleted and stored again within a second: a change for clients that show the study.
        return replace(newer, kind=StudyChangeKind.UPDATED)
    return newer


def seen_within(scope: Scope, change: StudyChange) -> StudyChange | None:
    """Return a change as a caller of a scope sees it; None: not at all.

    A study that loses the label by which it was visible is deleted for the caller, and one that
    gets such a label is new.

    Args:
        scope: Of the caller.
        change: What happened.
    """
    is_inside = scope.covers(change.study_id, change.labels)
    before = change.labels_before
    was_inside = is_inside if before is None else scope.covers(change.study_id, before)
    if was_inside and not is_inside:
        left = change.labels if before is None else before
        return replace(change, kind=StudyChangeKind.DELETED, document=None, labels=left)
    if is_inside and not was_inside and change.kind is StudyChangeKind.UPDATED:
        return replace(change, kind=StudyChangeKind.CREATED)
    return change if is_inside else None


_log = logging.getLogger(__name__)

LISTENER_MAX_EVENTS = 1_000
"""Events that wait for one listener: one that is further behind gets an error."""

_MISSED_MAX = 1_000
"""Most missed events of each kind, deletions and others; a list of studies is not longer."""

_CLOCKS_SECONDS = 15.0

TICK_SECONDS = 0.25
"""Interval at which delayed events are checked."""


class Listener:
    """One subscriber; holds at most `LISTENER_MAX_EVENTS` events.

    Args:
        study_instance_uid: Only this study; None for all.
        scope: Of the caller; changes of other studies are not queued.
    """

    def __init__(self, study_instance_uid: str | None, scope: Scope = ALL) -> None:
        self._study_instance_uid = study_instance_uid
        self._scope = scope
        self._events: deque[StudyChange] = deque()
        self._error: Error | None = None
        self._something = asyncio.Event()

    def add(self, event: StudyChange) -> None:
        """Queue an event; fail if too many wait."""
        if self._error is not None:
            return
        if self._study_instance_uid not in (None, event.study_instance_uid):
            return
        seen = seen_within(self._scope, event)
        if seen is None:
            return
        if len(self._events) >= LISTENER_MAX_EVENTS:
            EVENTS_DROPPED.inc(len(self._events) + 1)
            self.fail(LimitExceeded("Events came faster than they were read. Subscribe again."))
            return
        self._events.append(seen)
        self._something.set()

    @property
    def waiting(self) -> int:
        """Number of events that are not read yet."""
        return len(self._events)

    def fail(self, error: Error) -> None:
        """End the listener with an error; waiting events are dropped."""
        self._error = error
        self._events.clear()
        self._something.set()

    async def events(self) -> AsyncGenerator[StudyChange, None]:
        """Yield events as they happen.

        Raises:
            LimitExceeded: The listener was too slow.
            EventsUnavailable: MongoDB has no change streams.
        """
        while True:
            await self._something.wait()
            if self._error is not None:
                raise self._error
            if self._events:
                yield self._events.popleft()
            else:
                self._something.clear()


class StudyEvents:
    """The change stream and its listeners."""

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        *,
        stable_seconds: float,
        supervisor: Supervisor | None = None,
    ) -> None:
        """Open nothing yet.

        Args:
            database: Where the studies are.
            stable_seconds: Seconds without a change after which a study is stable.
            supervisor: Of the background tasks of this process; None: one of its own.
        """
        self._database = database
        self._studies = database[StudyDocument.Settings.name]
        self._deleted = database[DeletedStudyDocument.Settings.name]
        self._stable_seconds = stable_seconds
        self._listeners: set[Listener] = set()
        self._pacing = EventDebouncer(stable_seconds)
        self._stream = SharedStream(
            "study events",
            self._open_stream,
            self._step,
            supervisor=supervisor or Supervisor(),
            on_open=self._expect_stable,
        )

    @property
    def is_watching(self) -> bool:
        """Whether a change stream is open: only while there are listeners."""
        return self._stream.is_watching

    @asynccontextmanager
    async def listen(
        self, study_instance_uid: str | None = None, *, scope: Scope = ALL
    ) -> AsyncIterator[Listener]:
        """Listen; every change from here on is sent.

        Args:
            study_instance_uid: Only this study; None for all.
            scope: Only studies in it.

        Raises:
            EventsUnavailable: MongoDB is no replica set.
            DatabaseUnavailable: MongoDB does not answer.
        """
        listener = Listener(study_instance_uid, scope)
        if not self._listeners:
            # Events that were delayed for former listeners are old.
            self._pacing = EventDebouncer(self._stable_seconds)
        self._listeners.add(listener)
        try:
            async with self._stream.watched():
                yield listener
        finally:
            self._listeners.discard(listener)

    async def missed(
        self, since: datetime, study_instance_uid: str | None = None, *, scope: Scope = ALL
    ) -> list[StudyChange]:
        """Return what happened since a time: one event for each study, in its current state.

        A study that lost the label by which the caller saw it, or came back without it, is deleted.

        Args:
            since: Time of the caller's last event, with its time zone. What happened up to
                `_CLOCKS_SECONDS` before is included, because the clocks of servers differ.
            study_instance_uid: Only this study; None for all.
            scope: Only studies in it.

        Raises:
            InvalidInput: Deletions are not kept for so long.
            LimitExceeded: Too much happened: the caller has to read its lists again.
            DatabaseUnavailable: MongoDB does not answer.
        """
        if datetime.now(UTC) - since > timedelta(days=DELETIONS_KEPT_DAYS):
            raise InvalidInput(
                f"Events are kept for {DELETIONS_KEPT_DAYS} days. Query the studies instead.",
                argument="since",
            )
        after = since - timedelta(seconds=_CLOCKS_SECONDS)
        only = {} if study_instance_uid is None else {_STUDY_INSTANCE_UID: study_instance_uid}
        with translated_database_faults():
            found = self._deleted.find({_DELETED_AT: {"$gte": after}, **only})
            deleted = await found.limit(_MISSED_MAX + 1).to_list()
            found = self._studies.find({_UPDATED_AT: {"$gte": after}, **only})
            changed = await found.sort(_UPDATED_AT).limit(_MISSED_MAX + 1).to_list()
            ids = [study["_id"] for study in deleted]
            found = self._studies.find({"_id": {"$in": ids}}, {"labels": 1})
            is_back = {
                study["_id"]
                async for study in found
                if scope.covers(study["_id"], _labels_of(study))
            }
        if max(len(deleted), len(changed)) > _MISSED_MAX:
            raise LimitExceeded("Too much happened since then. Query the studies instead.")
        changes = [
            *(
                _change_since(after, StudyChangeKind.DELETED, study)
                for study in deleted
                if study["_id"] not in is_back
            ),
            *(_change_since(after, _kind_since(after, study), study) for study in changed),
        ]
        seen = (seen_within(scope, change) for change in changes)
        return [change for change in seen if change is not None]

    async def close(self) -> None:
        """Stop watching."""
        await self._stream.close()

    async def _step(self, stream: ChangeStream) -> None:
        """Wait a tick for a change, and send the events that are due."""
        clock = asyncio.get_running_loop().time
        change = await stream.try_next()
        if change is not None:
            self._pacing.add(_study_change(change), clock())
        for event in self._pacing.due(clock()):
            for listener in tuple(self._listeners):
                listener.add(event)
        # A burst arrives in one answer of MongoDB: let listeners read in between.
        await asyncio.sleep(0)

    async def _expect_stable(self) -> None:
        """Add the studies that changed shortly before: they will become stable."""
        now = datetime.now(UTC)
        since = now - timedelta(seconds=self._stable_seconds)
        async for document in self._studies.find({_UPDATED_AT: {"$gte": since}}):
            age_seconds = (now - document[_UPDATED_AT]).total_seconds()
            self._pacing.expect_stable(
                _make_change(StudyChangeKind.UPDATED, document),
                asyncio.get_running_loop().time() - age_seconds,
            )

    async def _allow_pre_images(self) -> None:
        """Make MongoDB keep deleted studies for a moment, because their events need the UID."""
        try:
            await self._database.command(
                "collMod",
                StudyDocument.Settings.name,
                changeStreamPreAndPostImages={"enabled": True},
            )
        except OperationFailure as exc:
            # Before MongoDB 6.0, or without the privilege: no events of deletions.
            _log.warning("deletions of studies send no events: MongoDB answers code %s", exc.code)

    async def _open_stream(self, resume_after: Any) -> ChangeStream:  # noqa: ANN401  # MongoDB's token
        await self._allow_pre_images()
        return await self._studies.watch(
            [{"$match": {"operationType": {"$in": ["insert", "update", "replace", "delete"]}}}],
            full_document="updateLookup",
            full_document_before_change="whenAvailable",
            resume_after=resume_after,
            max_await_time_ms=round(TICK_SECONDS * 1000),
        )


def _study_change(change: Mapping[str, Any]) -> StudyChange | None:
    """Read an event of MongoDB's change stream; None if its study is not known any more."""
    if change["operationType"] == "delete":
        before = change.get("fullDocumentBeforeChange")
        return _make_change(StudyChangeKind.DELETED, before) if before else None
    document = change.get("fullDocument")
    if not document:
        return None
    if change["operationType"] == "insert":
        return _make_change(StudyChangeKind.CREATED, document)
    updated = _make_change(StudyChangeKind.UPDATED, document)
    before = change.get("fullDocumentBeforeChange")
    return updated if before is None else replace(updated, labels_before=_labels_of(before))


def _kind_since(moment: datetime, study: Mapping[str, Any]) -> StudyChangeKind:
    is_new = study[_CREATED_AT] >= moment
    return StudyChangeKind.CREATED if is_new else StudyChangeKind.UPDATED


def _change_since(moment: datetime, kind: StudyChangeKind, study: Mapping[str, Any]) -> StudyChange:
    """Make an event that knows which labels were taken from a study since a moment."""
    change = _make_change(kind, study)
    former = (one["label"] for one in study.get(_FORMER_LABELS) or () if one[_REMOVED_AT] >= moment)
    return replace(change, labels_before=(*change.labels, *former))


def _labels_of(document: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(document.get("labels") or ())


def _make_change(kind: StudyChangeKind, document: Mapping[str, Any]) -> StudyChange:
    return StudyChange(
        kind=kind,
        study_id=document["_id"],
        study_instance_uid=document[_STUDY_INSTANCE_UID],
        document=None if kind is StudyChangeKind.DELETED else document,
        labels=_labels_of(document),
    )
