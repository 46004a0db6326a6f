"""Headers are made when a study is stable."""

from datetime import UTC, datetime, timedelta

import pytest

from services.dicomweb.prepared_headers import HeaderPreparation
from services.orthanc.beginning import FileBeginnings
from services.query.series_headers import SeriesHeaders
from tests.real.dicomweb_stage import ROOT, slices, store, uid
from tests.servers import RunningServer

STABLE = timedelta(seconds=30)


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


def preparation(server: RunningServer, clock: Clock) -> HeaderPreparation:
    return HeaderPreparation(
        server.runtime.database,
        server.runtime.series_headers,
        stable_seconds=STABLE.total_seconds(),
        now=clock,
    )


async def test_the_first_viewer_of_a_stable_study_finds_its_headers(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    begin = clock.now - STABLE
    await store(server, slices("P1", 3, series=2))
    made = server.runtime.database["seriesHeaders"]
    preparing = preparation(server, clock)
    clock.now += timedelta(seconds=1)
    until = await preparing.prepare(begin)
    assert until == clock.now - STABLE
    assert await made.count_documents({}) == 0
    clock.now += STABLE
    await preparing.prepare(until)
    assert await made.count_documents({}) == 2

    async def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file is read")

    monkeypatch.setattr(FileBeginnings, "read", refuse)
    answer = await server.http.get(f"{ROOT}/studies/{uid('P1')}/metadata")
    assert len(answer.json()) == 3


async def test_an_old_backlog_is_left_to_the_first_viewer(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    begin = clock.now
    await store(server, slices("P1", 1))
    prepared: list[str] = []

    async def note(_: SeriesHeaders, series_id: str) -> None:
        prepared.append(series_id)

    monkeypatch.setattr(SeriesHeaders, "prepare", note)
    clock.now += STABLE + timedelta(minutes=11)
    await preparation(server, clock).prepare(begin)
    assert prepared == []
    clock.now -= timedelta(minutes=9)
    await preparation(server, clock).prepare(begin)
    assert len(prepared) == 1


async def test_one_series_that_fails_keeps_no_other_waiting(
    server: RunningServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock()
    begin = clock.now - STABLE
    await store(server, slices("P1", 2, series=2))
    asked: list[str] = []

    async def fail(_: SeriesHeaders, series_id: str) -> None:
        asked.append(series_id)
        raise TimeoutError

    monkeypatch.setattr(SeriesHeaders, "prepare", fail)
    clock.now += STABLE + timedelta(seconds=1)
    await preparation(server, clock).prepare(begin)
    assert len(asked) == 2
