"""The service that keeps MongoDB in step with Orthanc."""

import asyncio
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from services.dicom.layout import WalkLimits
from services.errors import DatabaseUnavailable, Error, OrthancError, RecordRefused
from services.index.indexer import Indexer
from services.observability.metrics import (
    COMPARED_AT,
    COMPARISON_REPAIRS,
    COMPARISON_SECONDS,
    timed,
)
from services.orthanc.beginning import FileBeginnings
from services.orthanc.client import OrthancClient
from services.orthanc.identifiers import is_orthanc_id
from services.sync.comparison import WHOLE, Comparison, Part, SyncReport
from services.sync.follower import FeedCursor, Follower
from services.sync.isolation import PoisonIsolator
from services.sync.lease import LEASE_SECONDS, Lease
from services.sync.reconciler import Reconciler
from services.sync.rollup_check import RollUps
from services.sync.status import FeedStatus, seconds_behind
from services.tasks import HANGING_SECONDS, Alarm, cancel_and_wait, heartbeat

_log = logging.getLogger(__name__)

FOLLOWING = "follow-orthanc"
"""Name of the lease."""

SKIPPED_COMPARISONS = 9
"""Most consecutive comparisons that are skipped because no figure changed."""

_RETRY_SECONDS = 5.0
"""Pause after a failed comparison, shorter than the interval for a quick recovery."""

_NOTICE_SECONDS = 0.2
"""Time for which notices of deletions are collected: those of a study arrive in a burst."""

_STATUS_SECONDS = 3.0
"""Longest wait for the status: load balancers must not wait for a store that hangs."""


@dataclass(frozen=True, slots=True)
class _Figures:
    """Figures that change with the stores; they are cheap to read."""

    last_change: int
    held: int
    indexed: int


class SyncService:
    """Follows the change feed, compares, and reports its progress."""

    def __init__(
        self,
        orthanc: OrthancClient,
        beginnings: FileBeginnings,
        database: AsyncDatabase[dict[str, Any]],
        indexer: Indexer,
        *,
        poll_seconds: float,
        interval_seconds: float,
        limits: WalkLimits,
        lease_seconds: float = LEASE_SECONDS,
    ) -> None:
        """Start nothing yet: `run` does.

        Args:
            orthanc: Has the files.
            beginnings: Reads the files of this Orthanc.
            database: Has the index.
            indexer: Writes the index.
            poll_seconds: Pause before a feed without new changes is read again, in seconds.
            interval_seconds: Pause between two comparisons, in seconds.
            limits: Limits of a file's structure, as for uploads.
            lease_seconds: Time without a renewal after which another process takes over.
        """
        self._orthanc = orthanc
        self._interval_seconds = interval_seconds
        self.reconciler = Reconciler(orthanc, beginnings, database, indexer, limits=limits)
        roll_ups = RollUps(database)
        self.comparison = Comparison(orthanc, database, self.reconciler, roll_ups)
        self._cursor = FeedCursor(database)
        self._lease = Lease(
            database, FOLLOWING, lease_seconds=lease_seconds, renew_seconds=lease_seconds / 3
        )
        self._comparison_due = Alarm()
        self._is_forced = False
        self._follower = Follower(
            orthanc,
            self._cursor,
            PoisonIsolator(orthanc, self.reconciler),
            roll_ups,
            poll_seconds=poll_seconds,
            on_gap=self._demand_comparison,
        )
        self._comparing = asyncio.Lock()
        self._noticed: set[str] = set()
        self._notice = Alarm()

    async def run(self) -> None:
        """Follow and compare while this process holds the lease, until cancelled."""
        tasks = [
            asyncio.create_task(self._lease.hold(self._work), name="follow Orthanc"),
            asyncio.create_task(self._look_into_notices(), name="deletions in Orthanc"),
        ]
        await _together(tasks)

    async def synchronize(self, part: Part = WHOLE) -> SyncReport:
        """Compare everything with Orthanc now and repair it, with or without the lease.

        Args:
            part: What this process compares; others may compare the other parts meanwhile.

        Raises:
            OrthancUnavailable: Orthanc does not answer; repairs until then remain.
            DatabaseUnavailable: MongoDB does not answer.
        """
        async with self._comparing:
            if part.number == 1:
                await self.reconciler.faults.make_due()
            return await self.comparison.run(is_thorough=True, part=part)

    async def check(self, part: Part = WHOLE) -> SyncReport:
        """Compare everything, or a part, and change nothing.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        return await self.comparison.run(repair=False, is_thorough=True, part=part)

    def notice_deleted(self, instance_ids: Iterable[str]) -> None:
        """Note instances that Orthanc reports as deleted; they are checked soon.

        Args:
            instance_ids: From outside; invalid identifiers are left out.
        """
        self._noticed.update(filter(is_orthanc_id, instance_ids))
        self._notice.ring()

    def wake(self) -> None:
        """Read the change feed at once."""
        self._follower.wake()

    async def status(self) -> FeedStatus:
        """Return how far behind the index is; never raises."""
        state = self._follower.state
        try:
            async with asyncio.timeout(_STATUS_SECONDS):
                position = await self._cursor.read()
                since = position.sequence if position else 0
                waiting = await self._orthanc.changes(since, 1)
                newest = (await self._orthanc.newest_change()).last if waiting.changes else since
        except (OrthancError, DatabaseUnavailable) as exc:
            return FeedStatus(self._lease.is_held, last_error=exc.message)
        except TimeoutError:
            message = "MongoDB or Orthanc takes too long to answer."
            return FeedStatus(self._lease.is_held, last_error=message)
        return FeedStatus(
            is_following=self._lease.is_held,
            behind_changes=max(0, newest - since),
            behind_seconds=seconds_behind(waiting, datetime.now(UTC)),
            last_error=state.last_error if self._lease.is_held else None,
        )

    async def _work(self, token: int) -> None:
        self._comparison_due.ring()
        tasks = [
            asyncio.create_task(self._follower.follow(token), name="change feed"),
            asyncio.create_task(self._compare_regularly(), name="comparison"),
        ]
        await _together(tasks)

    def _demand_comparison(self) -> None:
        self._is_forced = True
        self._comparison_due.ring()

    async def _compare_regularly(self) -> None:
        agreed: _Figures | None = None
        skipped = 0
        is_first = True
        with heartbeat("comparison") as alive:
            while True:
                alive.beat(self._interval_seconds + HANGING_SECONDS)
                await self._comparison_due.wait(self._interval_seconds)
                alive.beat(HANGING_SECONDS)
                is_whole = self._is_forced
                try:
                    if is_first:
                        is_whole |= await self.comparison.has_outdated_records()
                        self._is_forced, is_first = is_whole, False
                    figures = await self._figures()
                    may_skip = not is_whole and skipped < SKIPPED_COMPARISONS
                    if may_skip and figures == agreed:
                        skipped += 1
                        continue
                    is_whole = is_whole or await self.comparison.counts.differs(is_exact=False)
                    self._is_forced, skipped = False, 0
                    report = await self._compare(is_whole=is_whole)
                    agreed = figures if report.up_to_date and not report.faults else None
                except (OrthancError, DatabaseUnavailable, RecordRefused) as exc:
                    _log.warning("the comparison is put off: %s", exc.message)
                    await asyncio.sleep(min(_RETRY_SECONDS, self._interval_seconds))
                    self._is_forced |= is_whole
                    self._comparison_due.ring()

    async def _compare(self, *, is_whole: bool) -> SyncReport:
        async with self._comparing:
            compare = self.comparison.run if is_whole else self.comparison.run_slice
            with timed(COMPARISON_SECONDS, "whole" if is_whole else "slice"):
                report = await compare()
        COMPARED_AT.set_to_current_time()
        for kind in ("indexed", "removed", "recounted"):
            COMPARISON_REPAIRS.labels(kind).inc(getattr(report, kind))
        if not report.up_to_date:
            _log.info(
                "comparison with Orthanc: %d indexed, %d removed, %d studies recounted",
                report.indexed,
                report.removed,
                report.recounted,
            )
        return report

    async def _figures(self) -> _Figures:
        return _Figures(
            last_change=(await self._orthanc.newest_change()).last,
            held=(await self._orthanc.statistics()).instances,
            indexed=await self.comparison.counts.indexed.estimate(),
        )

    async def _look_into_notices(self) -> None:
        with heartbeat("deletions in Orthanc") as alive:
            while True:
                alive.beat(self._interval_seconds + HANGING_SECONDS)
                await self._notice.wait(self._interval_seconds)
                await asyncio.sleep(_NOTICE_SECONDS)
                noticed, self._noticed = self._noticed, set()
                alive.beat(HANGING_SECONDS)
                try:
                    await self.reconciler.reconcile(noticed)
                except Error as exc:
                    # The next comparison finds them.
                    _log.warning("deletions in Orthanc are not checked yet: %s", exc.message)
                except Exception:  # noqa: BLE001  # whatever these do, the next ones count
                    _log.exception("deletions in Orthanc could not be checked")


async def _together(tasks: list[asyncio.Task[None]]) -> None:
    """Run tasks until one fails or the caller is cancelled; then cancel the others."""
    try:
        await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(*tasks)
