"""The places of workers: always taken again, and never left empty by a replacement."""

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import pytest

from graph.commands.workers import Handover, Worker, WorkerFailed, WorkerServer, WorkerSlot
from tests.patience import PATIENCE_SECONDS


class FakeWorker:
    """A worker that ends when it is told to."""

    def __init__(self, pid: int, *, starts: bool = True) -> None:
        self.pid = pid
        self.started_at = 0.0
        self.told: list[str] = []
        self.is_killed = False
        self._starts = starts
        self._end = asyncio.Event()

    async def ready(self) -> None:
        if not self._starts:
            raise WorkerFailed

    async def ended(self) -> int:
        await self._end.wait()
        return -9

    async def stop(self, *, within_seconds: float) -> None:
        assert within_seconds
        self._end.set()

    def tell(self, line: str) -> None:
        self.told.append(line)

    def kill(self) -> None:
        self.is_killed = True
        self._end.set()


def starting(workers: Sequence[FakeWorker]) -> Callable[[], "asyncio.Future[Worker]"]:
    """Return what starts these workers, one at each call."""
    left = list(workers)

    async def start() -> Worker:
        return cast("Worker", left.pop(0))

    return lambda: asyncio.ensure_future(start())


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def test_a_place_is_taken_again_also_when_the_next_worker_does_not_start() -> None:
    first, broken, second = FakeWorker(1), FakeWorker(2, starts=False), FakeWorker(3)
    changes: list[bool] = []
    slot = WorkerSlot(starting([first, broken, second]), changes.append, stop_seconds=1)
    await slot.open()
    keeping = asyncio.create_task(slot.keep())
    await turns()
    first.kill()
    async with asyncio.timeout(PATIENCE_SECONDS):
        while slot.worker is not cast("Worker", second):  # noqa: ASYNC110  # the slot tells nobody
            await asyncio.sleep(0.01)
    keeping.cancel()
    assert changes == [False, True]
    assert broken.is_killed


async def test_a_replacement_that_does_not_start_leaves_the_worker_where_it_is() -> None:
    first, broken = FakeWorker(1), FakeWorker(2, starts=False)
    slot = WorkerSlot(starting([first, broken]), lambda _: None, stop_seconds=1)
    await slot.open()
    with pytest.raises(WorkerFailed):
        await slot.replace()
    assert slot.worker is cast("Worker", first)
    assert not first.is_killed


async def test_the_others_serve_an_empty_place_until_it_is_taken() -> None:
    workers = [FakeWorker(1), FakeWorker(2), FakeWorker(3)]
    server = WorkerServer([starting([one]) for one in workers], delay_seconds=0, shutdown_seconds=1)
    for slot in server._slots:
        await slot.open()
    server._slots[0]._worker = None
    server._cover(0, is_taken=False)
    assert [one.told for one in workers] == [[], ["adopt 0"], ["adopt 0"]]
    # One that starts meanwhile serves it as well.
    server._slots[2]._worker = None
    server._cover(2, is_taken=False)
    server._slots[2]._worker = cast("Worker", workers[2])
    server._cover(2, is_taken=True)
    assert workers[2].told[-1] == "adopt 0"
    server._slots[0]._worker = cast("Worker", workers[0])
    server._cover(0, is_taken=True)
    assert [one.told[-1] for one in workers] == ["release 0", "release 0", "release 0"]


def test_a_worker_reads_what_its_parent_writes_and_shows_no_secret() -> None:
    given = Handover(
        number=1,
        listeners=[7, 8],
        metrics=9,
        address="http://127.0.0.1:8000",
        host="127.0.0.1",
        workers=2,
        connections={
            "mongodb_url": "mongodb://user:secret@a",
            "orthanc_url": None,
            "orthanc_username": "",
            "orthanc_password": "secret",
        },
        events_secret="secret",
    )
    read = Handover.from_line(given.to_line())
    assert read == given
    assert (read.descriptors, read.is_first) == ([7, 8, 9], False)
    assert read.group.workers == 2
    assert "secret" not in repr(read.group)
