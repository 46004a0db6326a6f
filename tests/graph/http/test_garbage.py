"""Full garbage collections wait until the process is idle."""

import asyncio
import gc
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from graph.http.garbage import collect_while_idle, defer_full_collections, trim_memory


class Process:
    """A process whose time passes when it sleeps.

    Attributes:
        shares: How much of each second it computes; the process ends with them.
        late: By how many seconds each sleep ends too late.
        collected: After how many seconds it collected.
        trimmed: After how many seconds it gave memory back.
    """

    def __init__(self, *shares: float, late: float = 0.0) -> None:
        self.late = late
        self.shares = list(shares)
        self.collected: list[float] = []
        self.trimmed: list[float] = []
        self.now = self.computed = 0.0

    async def sleep(self, seconds: float) -> None:
        if not self.shares:
            raise asyncio.CancelledError
        self.now += seconds + self.late
        self.computed += seconds * self.shares.pop(0)

    async def trim(self) -> None:
        self.trimmed.append(self.now)

    async def run(self) -> list[float]:
        with suppress(asyncio.CancelledError):
            await collect_while_idle(
                sleep=self.sleep,
                clock=lambda: self.now,
                computed=lambda: self.computed,
                collect=lambda: self.collected.append(self.now),
                trim=self.trim,
            )
        return self.collected


async def test_an_idle_process_collects_every_half_minute() -> None:
    assert await Process(*[0.05] * 100).run() == [30, 60, 90]


async def test_a_busy_process_waits_for_an_idle_second() -> None:
    assert await Process(*[0.9] * 45, 0.1, *[0.9] * 100).run() == [46]


async def test_a_busy_process_gives_free_memory_back() -> None:
    process = Process(*[1.0] * 100)
    await process.run()
    assert process.trimmed == [30, 60, 90]


async def test_a_process_whose_event_loop_is_late_is_not_idle() -> None:
    assert await Process(*[0.05] * 100, late=0.1).run() == []


async def test_a_process_that_is_never_idle_collects_all_the_same() -> None:
    assert await Process(*[1.0] * 1_300).run() == [600, 1_200]


@pytest.fixture
def usual_collections() -> Iterator[tuple[int, int, int]]:
    threshold = gc.get_threshold()
    yield threshold
    gc.set_threshold(*threshold)
    gc.unfreeze()


def test_young_objects_are_collected_as_always(usual_collections: tuple[int, int, int]) -> None:
    defer_full_collections()
    young, middle, oldest = gc.get_threshold()
    assert (young, middle) == usual_collections[:2]
    assert oldest > 1_000_000_000
    assert gc.get_freeze_count() > 10_000


def test_trimming_returns_free_memory_to_the_system() -> None:
    blocks = [bytes(60_000) for _ in range(4_000)]
    # What lies above the free blocks keeps the allocator from returning them by itself.
    kept = bytes(60_000)
    del blocks
    before = _resident_bytes()
    trim_memory()
    assert before - _resident_bytes() > 50_000_000
    assert kept


def _resident_bytes() -> int:
    status = Path("/proc/self/statm").read_text(encoding="ascii")
    return int(status.split()[1]) * resource.getpagesize()
