"""Following Orthanc's change feed: what arrives there is indexed here."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from services.errors import (
    DatabaseUnavailable,
    Error,
    OrthancAuthenticationFailed,
    OrthancError,
    OrthancOutcomeUnknown,
    OrthancTimedOut,
    OrthancUnavailable,
)
from services.orthanc.answers import ChangePage, StoredFile
from services.orthanc.client import OrthancClient
from services.sync.cursor import NEW_INSTANCE, FeedCursor, FeedPosition
from services.sync.reconciling import Reconciler
from services.sync.roll_ups import RollUps
from services.sync.waiting import Alarm

_log = logging.getLogger(__name__)

PAGE_CHANGES = 1_000
"""Changes asked for at once: Orthanc answers so many in 15 ms."""

MAX_BACKOFF_SECONDS = 5.0
"""Longest pause while Orthanc or MongoDB is away: both are served again soon after their return."""

_PATIENCE = 3
"""A page that breaks Orthanc's answer so often holds an instance that kills it: find which."""


@dataclass(frozen=True, slots=True)
class FollowerState:
    """What the follower of this process knows about itself.

    Attributes:
        position: Sequence number of the last change applied, None before the first.
        caught_up_at: When nothing more was waiting, None when that never was.
        last_error: Why it does not get on, None when it does.
    """

    position: int | None = None
    caught_up_at: datetime | None = None
    last_error: str | None = None


class Follower:
    """Reads page after page and moves the cursor behind each that is applied."""

    def __init__(
        self,
        orthanc: OrthancClient,
        cursor: FeedCursor,
        reconciler: Reconciler,
        roll_ups: RollUps,
        *,
        poll_seconds: float,
        on_gap: Callable[[], None],
    ) -> None:
        """Args are services; `on_gap` is called when the feed can't tell all and a comparison must.

        Args:
            orthanc: Where the feed is read.
            cursor: Where the position is kept.
            reconciler: What indexes.
            roll_ups: What checks the counts.
            poll_seconds: Pause between two looks at a feed that says nothing new, in seconds.
            on_gap: Asks for a comparison.
        """
        self._orthanc = orthanc
        self._cursor = cursor
        self._reconciler = reconciler
        self._roll_ups = roll_ups
        self._poll_seconds = poll_seconds
        self._on_gap = on_gap
        self._alarm = Alarm()
        self._broken_pages = 0
        self.state = FollowerState()

    def wake(self) -> None:
        """Look at the feed at once."""
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
        while True:
            try:
                if position is None:
                    position = await self._resume(token)
                position, is_caught_up = await self._step(position, token)
                pause, backoff = (self._poll_seconds if is_caught_up else 0.0), self._poll_seconds
            except (OrthancError, DatabaseUnavailable) as exc:
                self._report(exc)
                # Orthanc may come back with another database: the position is checked again.
                position = None
                pause = backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)
            await self._alarm.wait(pause)

    async def _resume(self, token: int) -> FeedPosition:
        """Return the stored position, or the feed's end when there is none that fits."""
        stored = await self._cursor.claim(token)
        if stored is not None and not await self._is_of_another_database(stored):
            return stored
        _log.info("the change feed is followed from its end; a comparison finds what is before")
        end = FeedPosition.after(await self._orthanc.newest_change())
        await self._cursor.move(end, token)
        self._on_gap()
        return end

    async def _is_of_another_database(self, position: FeedPosition) -> bool:
        page = await self._orthanc.changes(max(position.sequence - 1, 0), 1)
        if page.last < position.sequence:
            return True
        same = next((c for c in page.changes if c.sequence == position.sequence), None)
        if same is not None:
            return position.is_contradicted_by(same)
        # The change went with what it was about: nothing is proven, a comparison costs little.
        self._on_gap()
        return False

    async def _step(self, position: FeedPosition, token: int) -> tuple[FeedPosition, bool]:
        page = await self._orthanc.changes(position.sequence, PAGE_CHANGES)
        if page.last < position.sequence:
            return await self._resume(token), False
        if page.changes:
            await self._apply(page)
            position = FeedPosition.after(page)
            await self._cursor.move(position, token)
        self._note(position, page)
        return position, page.is_last_page

    async def _apply(self, page: ChangePage) -> None:
        arrived = list(
            dict.fromkeys(c.resource_id for c in page.changes if c.change_type == NEW_INSTANCE)
        )
        if not arrived:
            return
        try:
            if self._broken_pages < _PATIENCE:
                await self._reconcile(arrived)
            else:
                await self._apply_in_halves(arrived)
            self._broken_pages = 0
        except OrthancTimedOut:
            # A slow Orthanc is no broken one.
            raise
        except OrthancOutcomeUnknown:
            self._broken_pages += 1
            raise

    async def _apply_in_halves(self, instance_ids: Sequence[str]) -> None:
        """Find the instances that break Orthanc, record them and pass them by."""
        try:
            await self._reconcile(instance_ids)
        except OrthancTimedOut:
            raise
        except OrthancOutcomeUnknown as exc:
            if len(instance_ids) == 1:
                await self._give_up(instance_ids[0], exc)
                return
            await self._until_orthanc_answers()
            middle = len(instance_ids) // 2
            await self._apply_in_halves(instance_ids[:middle])
            await self._apply_in_halves(instance_ids[middle:])

    async def _reconcile(self, instance_ids: Sequence[str]) -> None:
        """Index instances, and right the counts where somebody indexed them and died."""
        done = await self._reconciler.reconcile(instance_ids)
        wrong = await self._roll_ups.find_wrong(done.unchanged_studies)
        if wrong:
            await self._roll_ups.repair(wrong)

    async def _give_up(self, instance_id: str, exc: Error) -> None:
        _log.error("instance %s breaks Orthanc when its header is read", instance_id, exc_info=exc)
        await self._until_orthanc_answers()
        files: Sequence[StoredFile] = await self._orthanc.stored_files([instance_id])
        await self._reconciler.give_up(files, "Orthanc stops when its header is read.")

    async def _until_orthanc_answers(self) -> None:
        pause = self._poll_seconds
        while True:
            try:
                await self._orthanc.system()
            except OrthancAuthenticationFailed:
                raise
            except OrthancUnavailable:
                await asyncio.sleep(pause)
                pause = min(pause * 2, MAX_BACKOFF_SECONDS)
            else:
                return

    def _note(self, position: FeedPosition, page: ChangePage) -> None:
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
