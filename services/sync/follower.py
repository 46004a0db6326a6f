"""Follows Orthanc's change feed and indexes what arrives there."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Self

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from models import FeedCursorDocument
from models.stored import stored_name
from services.database import elected_primary, translated_database_faults
from services.errors import DatabaseUnavailable, Error, OrthancError, RecordRefused
from services.orthanc.answers import Change, ChangePage
from services.orthanc.client import OrthancClient
from services.sync.isolation import PoisonIsolator
from services.sync.lease import LeaseLost
from services.sync.rollup_check import RollUps
from services.tasks import HANGING_SECONDS, Alarm, heartbeat

_CHANGE_DATE = stored_name(FeedCursorDocument.change_date)
_MOVED_AT = stored_name(FeedCursorDocument.moved_at)
_RESOURCE_ID = stored_name(FeedCursorDocument.resource_id)


_CURSOR = "changes"

NEW_INSTANCE = "NewInstance"
"""The change that announces an arrival; all other changes of an arrival follow from it."""


@dataclass(frozen=True, slots=True)
class FeedPosition:
    """A position in the change feed.

    Attributes:
        sequence: Sequence number of the last change that was applied.
        change_date: Orthanc's date of that change, `""` when it is not known.
        resource_id: The resource of that change, `""` when it is not known.
    """

    sequence: int
    change_date: str = ""
    resource_id: str = ""

    @classmethod
    def after(cls, page: ChangePage) -> Self:
        """Return the position after a page."""
        if not page.changes:
            return cls(sequence=page.last)
        newest = page.changes[-1]
        return cls(max(page.last, newest.sequence), newest.date, newest.resource_id)

    def is_contradicted_by(self, change: Change) -> bool:
        """Return whether the change with this number belongs to another database of Orthanc."""
        return bool(self.change_date) and (
            (self.change_date, self.resource_id) != (change.date, change.resource_id)
        )


class FeedCursor:
    """Reads and moves the cursor."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._cursors = database[FeedCursorDocument.Settings.name]

    @property
    def election(self) -> object:
        """What made MongoDB's present primary one; see `elected_primary`."""
        return elected_primary(self._cursors.database.client)

    async def read(self) -> FeedPosition | None:
        """Return the position, None when nothing was ever followed.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            stored = await self._cursors.find_one({"_id": _CURSOR})
        if stored is None:
            return None
        return FeedPosition(
            sequence=stored["sequence"],
            change_date=stored[_CHANGE_DATE],
            resource_id=stored[_RESOURCE_ID],
        )

    async def claim(self, token: int) -> FeedPosition | None:
        """Exclude former holders of the lease, and return the position.

        Args:
            token: Fencing token of the lease.

        Raises:
            LeaseLost: A later holder has claimed it.
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            claimed = await self._cursors.update_one(
                {"_id": _CURSOR, "token": {"$lte": token}}, {"$set": {"token": token}}
            )
        position = await self.read()
        if position is not None and not claimed.matched_count:
            raise LeaseLost
        return position

    async def move(self, position: FeedPosition, token: int) -> None:
        """Move the cursor, after everything up to a position was applied.

        Args:
            position: The new position; smaller than the old one when Orthanc was replaced.
            token: Fencing token of the lease.

        Raises:
            LeaseLost: A later holder has claimed the cursor; it was not moved.
            DatabaseUnavailable: MongoDB does not answer.
        """
        moved = {
            "sequence": position.sequence,
            _CHANGE_DATE: position.change_date,
            _RESOURCE_ID: position.resource_id,
            "token": token,
            _MOVED_AT: datetime.now(UTC),
        }
        with translated_database_faults():
            try:
                await self._cursors.update_one(
                    {"_id": _CURSOR, "token": {"$lte": token}}, {"$set": moved}, upsert=True
                )
            except DuplicateKeyError as exc:
                # The stored cursor has a greater token, so the upsert tried to insert another one.
                raise LeaseLost from exc


_log = logging.getLogger(__name__)

PAGE_CHANGES = 1_000
"""Changes in one call, which Orthanc answers in 15 ms."""

MAX_BACKOFF_SECONDS = 5.0
"""Longest pause while Orthanc or MongoDB is unavailable."""


@dataclass(frozen=True, slots=True)
class FollowerState:
    """The state of the follower of this process.

    Attributes:
        position: Sequence number of the last change applied, None before the first.
        caught_up_at: When all changes were applied last, None if they never were.
        last_error: Why it makes no progress, None when it does.
    """

    position: int | None = None
    caught_up_at: datetime | None = None
    last_error: str | None = None


class Follower:
    """Reads the feed page by page, applies each page, and then moves the cursor."""

    def __init__(
        self,
        orthanc: OrthancClient,
        cursor: FeedCursor,
        isolation: PoisonIsolator,
        roll_ups: RollUps,
        *,
        poll_seconds: float,
        on_gap: Callable[[], None],
    ) -> None:
        """Start nothing yet: `follow` does.

        Args:
            orthanc: Has the feed.
            cursor: Stores the position.
            isolation: Indexes instances, also if some of them crash Orthanc.
            roll_ups: Checks the counts.
            poll_seconds: Pause before a feed without new changes is read again, in seconds.
            on_gap: Called when the feed may lack changes, so that a comparison is needed.
        """
        self._orthanc = orthanc
        self._cursor = cursor
        self._isolation = isolation
        self._roll_ups = roll_ups
        self._poll_seconds = poll_seconds
        self._on_gap = on_gap
        self._alarm = Alarm()
        self._election: object = None
        self.state = FollowerState()

    def wake(self) -> None:
        """Read the feed at once."""
        self._alarm.ring()

    async def follow(self, token: int) -> None:
        """Follow until cancelled or until the lease is lost.

        Args:
            token: Fencing token of the lease.

        Raises:
            LeaseLost: Another process follows now.
        """
        position: FeedPosition | None = None
        backoff = self._poll_seconds
        with heartbeat("change feed") as alive:
            while True:
                alive.beat(HANGING_SECONDS)
                try:
                    if position is None:
                        position = await self._resume(token)
                    position, is_caught_up = await self._step(position, token)
                    pause = self._poll_seconds if is_caught_up else 0.0
                    backoff = self._poll_seconds
                except (OrthancError, DatabaseUnavailable, RecordRefused) as exc:
                    self._report(exc)
                    # Orthanc may come back with another database: check the position again.
                    position = None
                    pause = backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
                alive.beat(pause + HANGING_SECONDS)
                await self._alarm.wait(pause)

    async def _resume(self, token: int) -> FeedPosition:
        """Return the stored position, or the feed's end if there is none or it does not fit."""
        stored = await self._cursor.claim(token)
        self._detect_other_primary()
        if stored is not None and not await self._is_of_another_database(stored):
            return stored
        end = FeedPosition.after(await self._orthanc.newest_change())
        await self._cursor.move(end, token)
        _log.info("the change feed is followed from its end; a comparison finds what is before")
        self._on_gap()
        return end

    async def _is_of_another_database(self, position: FeedPosition) -> bool:
        page = await self._orthanc.changes(max(position.sequence - 1, 0), 1)
        if page.last < position.sequence:
            return True
        same = next((c for c in page.changes if c.sequence == position.sequence), None)
        if same is not None:
            return position.is_contradicted_by(same)
        # The change was deleted with its resource, which proves nothing; a comparison is cheap.
        self._on_gap()
        return False

    async def _step(self, position: FeedPosition, token: int) -> tuple[FeedPosition, bool]:
        page = await self._orthanc.changes(position.sequence, PAGE_CHANGES)
        if page.last < position.sequence:
            return await self._resume(token), False
        before = position
        if page.changes:
            await self._apply(page)
            position = FeedPosition.after(page)
            await self._cursor.move(position, token)
        if self._detect_other_primary():
            # It may lack what was applied of this page.
            return before, False
        self._record_position(position, page)
        return position, page.is_last_page

    def _detect_other_primary(self) -> bool:
        """Demand a comparison if MongoDB was restarted or failed over since the last check.

        The index is written before MongoDB's journal, and PyMongo repeats a command after a crash,
        so nothing else shows that earlier writes, such as removals, were lost.
        """
        elected, known = self._cursor.election, self._election
        if elected is None or elected == known:
            return False
        self._election = elected
        if known is None:
            return False
        _log.warning("MongoDB has another primary now: the index is compared with Orthanc")
        self._on_gap()
        return True

    async def _apply(self, page: ChangePage) -> None:
        arrived = list(
            dict.fromkeys(c.resource_id for c in page.changes if c.change_type == NEW_INSTANCE)
        )
        if not arrived:
            return
        done = await self._isolation.reconcile(arrived)
        # A process that indexed these instances may have died before it updated their parents, and
        # commits leave out large series.
        await self._roll_ups.roll_up(done.unchanged_studies | done.postponed_studies)

    def _record_position(self, position: FeedPosition, page: ChangePage) -> None:
        now = datetime.now(UTC)
        self.state = replace(
            self.state,
            position=position.sequence,
            caught_up_at=now if page.is_last_page else self.state.caught_up_at,
            last_error=None,
        )

    def _report(self, exc: Error) -> None:
        if self.state.last_error != exc.message:
            _log.warning("the change feed waits: %s (%s)", exc.message, exc.detail)
        self.state = replace(self.state, last_error=exc.message)
