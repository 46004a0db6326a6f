"""Frames that stop Orthanc: suspected, tried alone, and in the end not tried any more.

When Orthanc dies, every frame that was being rendered is a suspect. A suspect is rendered alone
the next time: if Orthanc dies again it was this frame, if the picture comes it is cleared. A frame
whose deaths reach two is quarantined until its revision changes, over restarts.
"""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Protocol

from services.errors import (
    DatabaseUnavailable,
    FrameQuarantined,
    OrthancOutcomeUnknown,
    OrthancTimedOut,
)

_log = logging.getLogger(__name__)

DEATHS = 2
"""One death may be an accident: Orthanc can be stopped from outside at any time."""

_FRESH_SECONDS = 5.0
"""How long a frame that another process quarantined may still be tried by this one."""


class DeathRecords(Protocol):
    """Where deaths are kept over restarts; by `instance/revision/frame_index`."""

    async def load(self) -> Mapping[str, int]:
        """Return all deaths."""

    async def add(self, frame: str) -> int:
        """Count a death and return how many that frame has now, in all processes."""

    async def remove(self, frame: str) -> None:
        """Forget the deaths of a frame."""


@dataclass(slots=True)
class _Flight:
    frame: str
    was_alone: bool


class Quarantine:
    """Decides which frames are rendered, which alone, and which never.

    Args:
        records: Where deaths are kept.
        is_orthanc_dead: Asks Orthanc whether it is there, right after a connection broke.
        clock: Seconds that never go back.
    """

    def __init__(
        self,
        records: DeathRecords,
        is_orthanc_dead: Callable[[], Awaitable[bool]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self._fresh_until = 0.0
        self._records = records
        self._is_orthanc_dead = is_orthanc_dead
        self._deaths: dict[str, int] = {}
        self._suspects: set[str] = set()
        self._flights: list[_Flight] = []

    async def load(self) -> None:
        """Read what former and other processes found.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        self._fresh_until = self._clock() + _FRESH_SECONDS
        deaths = dict(await self._records.load())
        # What another process cleared is no suspect here; what flew in company stays one.
        self._suspects = (self._suspects - set(self._deaths)) | set(deaths)
        self._deaths = deaths

    async def refresh(self) -> None:
        """Read again, when that is some seconds ago, what other processes found."""
        if self._clock() < self._fresh_until:
            return
        try:
            await self.load()
        except DatabaseUnavailable:
            _log.warning("deaths of Orthanc that others saw are not known: no database")

    def is_suspect(self, frame: str) -> bool:
        """Whether a frame is to be rendered alone.

        Raises:
            FrameQuarantined: It is not to be rendered at all.
        """
        if self.holds(frame):
            raise FrameQuarantined
        return frame in self._suspects

    def holds(self, frame: str) -> bool:
        """Whether a frame is not to be rendered any more."""
        return self._deaths.get(frame, 0) >= DEATHS

    @asynccontextmanager
    async def watched(self, frame: str) -> AsyncIterator[None]:
        """Watch one render and judge what it did to Orthanc."""
        flight = _Flight(frame, was_alone=not self._flights)
        for other in self._flights:
            other.was_alone = False
        self._flights.append(flight)
        try:
            yield
        except OrthancTimedOut:
            raise
        except OrthancOutcomeUnknown:
            # An Orthanc that was away already refuses the connection, which is another error.
            if await self._is_orthanc_dead():
                await self._judge(flight)
            raise
        else:
            await self._clear(frame)
        finally:
            self._flights.remove(flight)

    async def _judge(self, flight: _Flight) -> None:
        self._suspects.add(flight.frame)
        if not flight.was_alone:
            return
        self._deaths[flight.frame] = self._deaths.get(flight.frame, 0) + 1
        try:
            self._deaths[flight.frame] = await self._records.add(flight.frame)
        except DatabaseUnavailable:
            _log.warning("a death of Orthanc is known to this process only: no database")

    async def _clear(self, frame: str) -> None:
        self._suspects.discard(frame)
        if self._deaths.pop(frame, None) is None:
            return
        try:
            await self._records.remove(frame)
        except DatabaseUnavailable:
            _log.warning("a cleared frame stays suspected after a restart: no database")
