"""Headers of a study are made when it is stable: the first viewer does not wait for them."""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import SeriesDocument, StudyDocument
from models.stored import stored_name
from services.database import translated_database_faults
from services.errors import DatabaseUnavailable, Error
from services.query.series_headers import SeriesHeaders
from services.sync.lease import Lease
from services.tasks import HANGING_SECONDS, heartbeat

_log = logging.getLogger(__name__)

_UPDATED_AT = stored_name(StudyDocument.updated_at)
_ORTHANC_STUDY_ID = stored_name(SeriesDocument.orthanc_study_id)

_LEASE = "prepared-headers"
_LOOK_SECONDS = 1.0
_OVERLAP = timedelta(seconds=5)
"""Studies are looked at for this much longer: clocks of processes differ, and writes take time."""

_LATEST = timedelta(minutes=10)
"""Studies that became stable longer ago are left to the first viewer: while an archive is imported,
preparing all of it would read every file a second time."""

_STUDIES_AT_ONCE = 200
"""Studies that one look finds at most; the newest come first."""

_SERIES_SECONDS = 600
"""Longest time for a series: 10,000 slices take a minute."""


class HeaderPreparation:
    """Makes headers in the background, in one process of all.

    Args:
        database: Where the studies are.
        headers: Makes and keeps headers.
        stable_seconds: A study is stable when nothing new came for so long, in seconds.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        headers: SeriesHeaders,
        *,
        stable_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._studies = database[StudyDocument.Settings.name]
        self._series = database[SeriesDocument.Settings.name]
        self._headers = headers
        self._stable = timedelta(seconds=stable_seconds)
        self._now = now
        self._lease = Lease(database, _LEASE)

    async def run(self) -> None:
        """Prepare headers while this process holds the lease, until cancelled."""
        await self._lease.hold(self._work)

    async def _work(self, _token: int) -> None:
        # What became stable before is left to the first viewer.
        prepared_until = self._now() - self._stable
        is_waiting = False
        with heartbeat("prepared headers") as alive:
            while True:
                alive.beat(_SERIES_SECONDS + HANGING_SECONDS)
                try:
                    prepared_until = await self.prepare(prepared_until)
                    is_waiting = False
                except DatabaseUnavailable as exc:
                    if not is_waiting:
                        reason = exc.detail or exc.message
                        _log.warning("preparing headers waits for MongoDB: %s", reason)
                    is_waiting = True
                await asyncio.sleep(_LOOK_SECONDS)

    async def prepare(self, since: datetime) -> datetime:
        """Prepare the headers of studies that have become stable.

        Args:
            since: What an earlier call returned, or where to begin.

        Returns:
            Until when studies have been looked at.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        until = self._now() - self._stable
        earliest = max(since - _OVERLAP, until - _LATEST)
        with translated_database_faults():
            found = await (
                self._studies.find({_UPDATED_AT: {"$gt": earliest, "$lte": until}}, {"_id": 1})
                .sort([(_UPDATED_AT, -1), ("_id", -1)])
                .limit(_STUDIES_AT_ONCE)
                .to_list()
            )
        for study in found:
            if self._now() - until > _LATEST:
                break
            await self._prepare_study(study["_id"])
        return until

    async def _prepare_study(self, study_id: str) -> None:
        with translated_database_faults():
            series = await self._series.find({_ORTHANC_STUDY_ID: study_id}, {"_id": 1}).to_list()
        for one in series:
            try:
                async with asyncio.timeout(_SERIES_SECONDS):
                    await self._headers.prepare(one["_id"])
            except DatabaseUnavailable:
                raise
            except (Error, TimeoutError) as exc:
                # Whoever asks for them makes them, or learns why they can't be made.
                code = exc.code if isinstance(exc, Error) else "timeout"
                _log.warning("headers of series %s are not prepared: %s", one["_id"], code)
