import asyncio
from collections.abc import Mapping
from unittest.mock import AsyncMock

import pytest

from services.errors import (
    DatabaseUnavailable,
    FrameQuarantined,
    OrthancOutcomeUnknown,
    OrthancTimedOut,
    OrthancUnavailable,
)
from services.frames.quarantine import Quarantine


class Records:
    def __init__(self) -> None:
        self.deaths: dict[str, int] = {}

    async def load(self) -> Mapping[str, int]:
        return self.deaths

    async def add(self, frame: str) -> int:
        self.deaths[frame] = self.deaths.get(frame, 0) + 1
        return self.deaths[frame]

    async def remove(self, frame: str) -> None:
        del self.deaths[frame]


async def dead() -> bool:
    return True


async def alive() -> bool:
    return False


async def render(
    quarantine: Quarantine, frame: str, error: Exception | None, gate: asyncio.Event | None = None
) -> None:
    async with quarantine.watched(frame):
        if gate is not None:
            await gate.wait()
        if error is not None:
            raise error


async def test_a_frame_alone_at_two_deaths_is_quarantined_over_restarts() -> None:
    records = Records()
    quarantine = Quarantine(records, dead)
    for _ in range(2):
        assert quarantine.is_suspect("f") is (records.deaths != {})
        with pytest.raises(OrthancOutcomeUnknown):
            await render(quarantine, "f", OrthancOutcomeUnknown())
    restarted = Quarantine(records, dead)
    await restarted.load()
    for judge in (quarantine, restarted):
        with pytest.raises(FrameQuarantined):
            judge.is_suspect("f")


async def test_what_another_process_quarantines_or_clears_is_known_within_seconds() -> None:
    records, now = Records(), [0.0]
    quarantine = Quarantine(records, dead, clock=lambda: now[0])
    await quarantine.load()
    records.deaths = {"f": 2, "g": 1}
    await quarantine.refresh()
    assert [quarantine.is_suspect(name) for name in "fg"] == [False, False]
    now[0] = 5.0
    await quarantine.refresh()
    assert quarantine.is_suspect("g")
    with pytest.raises(FrameQuarantined):
        quarantine.is_suspect("f")
    records.deaths = {}
    now[0] = 10.0
    await quarantine.refresh()
    assert [quarantine.is_suspect(name) for name in "fg"] == [False, False]


async def test_a_database_that_is_away_leaves_the_quarantine_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    records, now = Records(), [0.0]
    records.deaths = {"f": 2}
    quarantine = Quarantine(records, dead, clock=lambda: now[0])
    await quarantine.load()
    monkeypatch.setattr(records, "load", AsyncMock(side_effect=DatabaseUnavailable))
    now[0] = 5.0
    await quarantine.refresh()
    with pytest.raises(FrameQuarantined):
        quarantine.is_suspect("f")


async def test_frames_in_flight_together_are_suspects_without_a_death() -> None:
    records, gate = Records(), asyncio.Event()
    quarantine = Quarantine(records, dead)
    flights = [
        asyncio.create_task(render(quarantine, name, OrthancOutcomeUnknown(), gate))
        for name in "fg"
    ]
    await asyncio.sleep(0)
    gate.set()
    await asyncio.gather(*flights, return_exceptions=True)
    assert [quarantine.is_suspect(name) for name in "fgh"] == [True, True, False]
    assert records.deaths == {}


async def test_a_picture_clears_a_suspect() -> None:
    records = Records()
    quarantine = Quarantine(records, dead)
    with pytest.raises(OrthancOutcomeUnknown):
        await render(quarantine, "f", OrthancOutcomeUnknown())
    await render(quarantine, "f", None)
    assert not quarantine.is_suspect("f")
    assert records.deaths == {}


@pytest.mark.parametrize("error", [OrthancUnavailable(), OrthancTimedOut()])
async def test_an_orthanc_that_was_away_or_slow_blames_no_frame(error: Exception) -> None:
    quarantine = Quarantine(Records(), dead)
    with pytest.raises(type(error)):
        await render(quarantine, "f", error)
    assert not quarantine.is_suspect("f")


async def test_a_broken_connection_to_a_living_orthanc_blames_no_frame() -> None:
    quarantine = Quarantine(Records(), alive)
    with pytest.raises(OrthancOutcomeUnknown):
        await render(quarantine, "f", OrthancOutcomeUnknown())
    assert not quarantine.is_suspect("f")
