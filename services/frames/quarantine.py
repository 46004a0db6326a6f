"""Quarantine of frames that crash their renderer: they are tried again once.

Each renderer decodes one frame at a time, so its end has one cause. A frame that ended two is
quarantined until the revision of its instance changes, over restarts; an instance of which three
frames did so is quarantined as a whole.
"""

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from services.errors import DatabaseUnavailable, FrameQuarantined
from services.frames.records import CrashRecords

_log = logging.getLogger(__name__)

FRAME_CRASHES = 2
"""One crash may be an accident: the system may kill any process when memory is short."""

INSTANCE_FRAMES = 3
"""Frames of one instance that crash: then the others are of the same kind."""

_FRESH_SECONDS = 5.0
"""Time after which this process notices frames that another process quarantined."""


@dataclass(frozen=True, slots=True)
class FrameId:
    """One frame of one revision of an instance; `frame_index` is 0-based."""

    instance_id: str
    revision: str
    frame_index: int

    @classmethod
    def parse(cls, text: str) -> "FrameId":
        """Read `instance/revision/frame_index`."""
        instance_id, revision, index = text.split("/")
        return cls(instance_id, revision, int(index))

    def __str__(self) -> str:
        return f"{self.instance_id}/{self.revision}/{self.frame_index}"


class Quarantine:
    """Decides which frames are rendered.

    Args:
        records: Where crashes are kept.
        clock: Seconds that never go back.
    """

    def __init__(self, records: CrashRecords, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._fresh_until = 0.0
        self._records = records
        self._crashes: dict[FrameId, int] = {}
        self._frames: Counter[tuple[str, str]] = Counter()

    @property
    def quarantined(self) -> int:
        """Number of frames that are not rendered because they crashed their renderer."""
        return sum(crashes >= FRAME_CRASHES for crashes in self._crashes.values())

    async def load(self) -> None:
        """Read the crashes that former and other processes recorded.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        self._fresh_until = self._clock() + _FRESH_SECONDS
        stored = await self._records.load()
        self._crashes = {FrameId.parse(frame): count for frame, count in stored.items()}
        self._frames = Counter((one.instance_id, one.revision) for one in self._crashes)

    async def refresh(self) -> None:
        """Read the crashes of other processes again, at most every few seconds."""
        if self._clock() < self._fresh_until:
            return
        try:
            await self.load()
        except DatabaseUnavailable:
            _log.warning("crashes that other processes recorded are unknown: no database")

    def check(self, frame: FrameId) -> None:
        """Check that a frame may be rendered.

        Raises:
            FrameQuarantined: It may not.
        """
        if self._crashes.get(frame, 0) >= FRAME_CRASHES:
            raise FrameQuarantined
        if self._frames[frame.instance_id, frame.revision] >= INSTANCE_FRAMES:
            raise FrameQuarantined(
                "This instance is quarantined: decoding its frames stopped the renderer repeatedly."
            )

    def is_suspect(self, instance_id: str, revision: str) -> bool:
        """Return whether a frame of an instance crashed; then none is rendered ahead."""
        return self._frames[instance_id, revision] > 0

    async def record_crash(self, frame: FrameId) -> None:
        """Count a crash of a frame."""
        self._set(frame, self._crashes.get(frame, 0) + 1)
        try:
            self._set(frame, await self._records.add(str(frame)))
        except DatabaseUnavailable:
            _log.warning("a crash is known to this process only: no database")

    async def clear(self, frame: FrameId) -> None:
        """Delete the crashes of a frame that was rendered."""
        if frame not in self._crashes:
            return
        del self._crashes[frame]
        self._frames[frame.instance_id, frame.revision] -= 1
        try:
            await self._records.remove(str(frame))
        except DatabaseUnavailable:
            _log.warning("a cleared frame stays suspected after a restart: no database")

    def _set(self, frame: FrameId, crashes: int) -> None:
        if frame not in self._crashes:
            self._frames[frame.instance_id, frame.revision] += 1
        self._crashes[frame] = crashes
