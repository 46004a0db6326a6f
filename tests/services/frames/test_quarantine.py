from collections.abc import Mapping
from unittest.mock import AsyncMock

import pytest

from services.errors import DatabaseUnavailable, FrameQuarantined
from services.frames.quarantine import FrameId, Quarantine
from services.frames.records import CrashRecords

FIRST, SECOND, THIRD, FOURTH = (FrameId("i", "aaaaaaaa", index) for index in range(4))
OTHER_REVISION = FrameId("i", "bbbbbbbb", 0)


class Records(CrashRecords):
    """Crashes in memory."""

    def __init__(self) -> None:
        self.crashes: dict[str, int] = {}

    async def load(self) -> Mapping[str, int]:
        return dict(self.crashes)

    async def add(self, frame: str) -> int:
        self.crashes[frame] = self.crashes.get(frame, 0) + 1
        return self.crashes[frame]

    async def remove(self, frame: str) -> None:
        del self.crashes[frame]


def is_held(quarantine: Quarantine, frame: FrameId) -> bool:
    try:
        quarantine.check(frame)
    except FrameQuarantined:
        return True
    return False


async def test_a_frame_is_quarantined_at_its_second_crash_over_restarts() -> None:
    records = Records()
    quarantine = Quarantine(records)
    assert not quarantine.is_suspect("i", "aaaaaaaa")
    await quarantine.record_crash(FIRST)
    assert not is_held(quarantine, FIRST)
    assert quarantine.is_suspect("i", "aaaaaaaa")
    await quarantine.record_crash(FIRST)
    restarted = Quarantine(records)
    await restarted.load()
    for judge in (quarantine, restarted):
        assert [is_held(judge, one) for one in (FIRST, SECOND, OTHER_REVISION)] == [
            True, False, False
        ]  # fmt: skip
    assert records.crashes == {"i/aaaaaaaa/0": 2}


async def test_an_instance_is_quarantined_when_three_of_its_frames_crashed() -> None:
    records = Records()
    quarantine = Quarantine(records)
    for frame in (FIRST, SECOND):
        await quarantine.record_crash(frame)
    assert not is_held(quarantine, FOURTH)
    await quarantine.record_crash(THIRD)
    restarted = Quarantine(records)
    await restarted.load()
    for judge in (quarantine, restarted):
        with pytest.raises(FrameQuarantined, match="This instance is quarantined"):
            judge.check(FOURTH)
        assert not is_held(judge, OTHER_REVISION)


async def test_a_picture_clears_a_suspect() -> None:
    records = Records()
    quarantine = Quarantine(records)
    await quarantine.record_crash(FIRST)
    await quarantine.clear(FIRST)
    await quarantine.clear(SECOND)
    assert not quarantine.is_suspect("i", "aaaaaaaa")
    assert records.crashes == {}


async def test_what_another_process_quarantines_or_clears_is_known_within_seconds() -> None:
    records, now = Records(), [0.0]
    quarantine = Quarantine(records, clock=lambda: now[0])
    await quarantine.load()
    records.crashes = {str(FIRST): 2}
    await quarantine.refresh()
    assert not is_held(quarantine, FIRST)
    now[0] = 5.0
    await quarantine.refresh()
    assert is_held(quarantine, FIRST)
    records.crashes = {}
    now[0] = 10.0
    await quarantine.refresh()
    assert not is_held(quarantine, FIRST)


async def test_a_database_that_is_away_leaves_the_quarantine_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records, now = Records(), [0.0]
    quarantine = Quarantine(records, clock=lambda: now[0])
    away = AsyncMock(side_effect=DatabaseUnavailable)
    for name in ("load", "add", "remove"):
        monkeypatch.setattr(records, name, away)
    for _ in range(2):
        await quarantine.record_crash(FIRST)
    now[0] = 5.0
    await quarantine.refresh()
    assert is_held(quarantine, FIRST)
    await quarantine.clear(FIRST)
    assert not is_held(quarantine, FIRST)
