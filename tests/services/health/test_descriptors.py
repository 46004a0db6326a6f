"""Descriptors are raised to what the system allows, and their exhaustion is logged."""

import asyncio
import logging
import resource

import pytest

from services.health import descriptors
from services.health.descriptors import (
    DescriptorWatch,
    count_descriptors,
    describe_descriptors,
    raise_descriptor_limit,
)
from tests.patience import PATIENCE_SECONDS


@pytest.mark.parametrize(
    ("soft", "hard", "expected"),
    [
        (1024, 4096, 4096),
        (1024, 1_048_576, 65_536),
        (1024, resource.RLIM_INFINITY, 65_536),
        (65_536, 1_048_576, None),
        (1_048_576, 1_048_576, None),
        (resource.RLIM_INFINITY, resource.RLIM_INFINITY, None),
    ],
)
def test_the_soft_limit_is_raised_and_never_lowered(
    soft: int, hard: int, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _kind: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: raised.append((kind, limits)))
    raise_descriptor_limit()
    assert raised == ([] if expected is None else [(resource.RLIMIT_NOFILE, (expected, hard))])


def test_enough_descriptors_need_no_words() -> None:
    assert describe_descriptors(799, 1000) is None
    told = describe_descriptors(800, 1000)
    assert told is not None
    assert told.startswith("800 of 1000 file descriptors are in use")


def test_descriptors_of_this_process_are_counted() -> None:
    used, limit = count_descriptors()
    assert 0 < used < limit


async def test_exhaustion_is_logged_once_a_minute_and_forgotten_when_it_is_over(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    found = [(1000, 1000)] * 13 + [(10, 1000)]
    over = asyncio.Event()

    def count() -> tuple[int, int]:
        if len(found) == 1:
            over.set()
        return found.pop(0) if len(found) > 1 else found[0]

    monkeypatch.setattr(descriptors, "count_descriptors", count)
    monkeypatch.setattr(descriptors, "_LOOK_SECONDS", 0)
    watch = DescriptorWatch()
    with caplog.at_level(logging.ERROR, "services.health.descriptors"):
        running = asyncio.create_task(watch.run())
        async with asyncio.timeout(PATIENCE_SECONDS):
            await over.wait()
            while watch.warning is not None:  # noqa: ASYNC110  # the watch has no event
                await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert len(caplog.records) == 2
    assert "1000 of 1000" in caplog.text
