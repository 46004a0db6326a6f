"""Background tasks are restarted, threads are waited for, tasks end although they resist."""

import asyncio
import logging
import threading
from contextvars import ContextVar

import pytest

from services import tasks as stopping
from services.tasks import Supervisor, beat, cancel_and_wait, finish_in_thread, heartbeat
from tests.patience import PATIENCE_SECONDS


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_AGAIN_SECONDS", 0.01)


async def _swallow(count: int) -> None:
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            if not count:
                raise
            count -= 1


async def _begun(count: int) -> "asyncio.Task[None]":
    task = asyncio.create_task(_swallow(count))
    await asyncio.sleep(0)
    return task


async def test_a_cancellation_that_was_swallowed_is_repeated() -> None:
    task = await _begun(2)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await cancel_and_wait(task, await _begun(0))
    assert task.cancelled()


async def test_no_task_stays_behind_a_caller_that_is_cancelled_itself() -> None:
    task = await _begun(3)
    stopping_it = asyncio.create_task(cancel_and_wait(task))
    await asyncio.sleep(0)
    stopping_it.cancel()
    with pytest.raises(asyncio.CancelledError):
        await stopping_it
    assert task.cancelled()


async def test_the_error_of_a_task_is_its_own() -> None:
    async def failing() -> None:
        raise KeyError

    task = asyncio.create_task(failing())
    await asyncio.sleep(0)
    await cancel_and_wait(task)
    assert isinstance(task.exception(), KeyError)


class Work:
    """Background work that ends as it is told to, then runs; counts its starts."""

    def __init__(self, *ends: BaseException | None) -> None:
        self._ends = list(ends)
        self.starts = 0
        self.runs = asyncio.Event()

    async def __call__(self) -> None:
        self.starts += 1
        if self._ends:
            end = self._ends.pop(0)
            if end is not None:
                raise end
            return
        self.runs.set()
        await asyncio.Event().wait()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "_FIRST_PAUSE_SECONDS", 0.0)


@pytest.mark.usefixtures("_no_pauses")
@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (KeyError("secret"), "KeyError"),
        (None, "it returned"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
async def test_a_background_task_that_ends_is_started_again_logged_and_named(
    end: BaseException | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    supervisor, work = Supervisor(clock=clock), Work(end)
    with caplog.at_level(logging.ERROR, "services.tasks"):
        async with asyncio.timeout(PATIENCE_SECONDS), supervisor.running("tokens", work):
            await work.runs.wait()
            assert supervisor.failing == {"tokens": reason}
            assert supervisor.names == ["tokens"]
            clock.now += stopping._STEADY_SECONDS
            assert supervisor.failing == {}
    assert work.starts == 2
    assert supervisor.names == []
    [record] = caplog.records
    assert "'tokens'" in record.getMessage()


@pytest.mark.usefixtures("_no_pauses")
async def test_a_task_is_not_started_again_while_it_is_being_stopped() -> None:
    starts = 0

    async def turns_a_cancellation_into_an_error() -> None:
        nonlocal starts
        starts += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError as exc:
            raise ConnectionError from exc

    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        Supervisor().running("sync", turns_a_cancellation_into_an_error),
    ):
        await asyncio.sleep(0)
    assert starts == 1


def test_pauses_grow_to_five_seconds() -> None:
    pauses = [stopping._pause_seconds(failures) for failures in (1, 2, 3, 7, 1000)]
    assert pauses == [0.1, 0.2, 0.4, 5.0, 5.0]


class Loops:
    """Background work of two loops, one of which hangs until it is released."""

    def __init__(self) -> None:
        self.hangs, self.may_go_on = asyncio.Event(), asyncio.Event()
        self.goes_on, self.may_end = asyncio.Event(), asyncio.Event()
        self.ended = asyncio.Event()

    async def __call__(self) -> None:
        await asyncio.gather(self.good(), self.bad())

    async def good(self) -> None:
        with heartbeat("good") as alive:
            alive.beat(PATIENCE_SECONDS)
            await asyncio.Event().wait()

    async def bad(self) -> None:
        with heartbeat("bad"):
            # Overdue in the next turn of the event loop: nothing depends on the clock.
            await self.step()
            await asyncio.sleep(0)
            self.hangs.set()
            await self.may_go_on.wait()
            beat(PATIENCE_SECONDS)
            self.goes_on.set()
            await self.may_end.wait()
        self.ended.set()

    async def step(self) -> None:
        beat(0)
        await asyncio.sleep(0)


async def test_a_loop_that_hangs_is_named_until_it_goes_on(
    caplog: pytest.LogCaptureFixture,
) -> None:
    supervisor, loops = Supervisor(), Loops()
    caplog.set_level(logging.WARNING, "services.tasks")
    async with asyncio.timeout(PATIENCE_SECONDS), supervisor.running("sync", loops):
        await loops.hangs.wait()
        assert supervisor.failing == {"sync": "no sign of life: bad"}
        loops.may_go_on.set()
        await loops.goes_on.wait()
        assert supervisor.failing == {}
    assert [record.getMessage() for record in caplog.records] == [
        "'bad' hangs: it gave no sign of life for 0 s",
        "'bad' goes on again",
    ]


async def test_a_loop_that_ends_is_no_longer_expected() -> None:
    supervisor, loops = Supervisor(), Loops()
    async with asyncio.timeout(PATIENCE_SECONDS), supervisor.running("sync", loops):
        await loops.hangs.wait()
        loops.may_go_on.set()
        loops.may_end.set()
        await loops.ended.wait()
        assert supervisor.failing == {}


async def test_a_sign_of_life_outside_of_a_background_task_does_nothing() -> None:
    beat(0)
    with heartbeat("command") as alive:
        alive.beat(0)
        alive.stop()
    await asyncio.sleep(0)
    assert not alive.is_overdue


async def test_names_of_background_tasks_are_unique() -> None:
    supervisor = Supervisor()
    async with supervisor.running("sync", Work()):
        with pytest.raises(ValueError, match="two background tasks"):
            async with supervisor.running("sync", Work()):
                pass
        assert supervisor.names == ["sync"]


async def test_a_cancelled_caller_waits_for_its_thread() -> None:
    began, may_end = threading.Event(), threading.Event()
    ended = False

    def work() -> None:
        nonlocal ended
        began.set()
        may_end.wait()
        ended = True

    caller = asyncio.create_task(finish_in_thread(work))
    await asyncio.to_thread(began.wait)
    for _ in range(3):
        caller.cancel()
        await asyncio.sleep(0)
    assert not caller.done()
    may_end.set()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert ended


async def test_a_cancelled_caller_asks_its_thread_once_to_end() -> None:
    began, aborted = threading.Event(), threading.Event()
    asked = []

    def work() -> None:
        began.set()
        aborted.wait()
        raise OSError

    def abort() -> None:
        asked.append("abort")
        aborted.set()

    caller = asyncio.create_task(finish_in_thread(work, abort=abort))
    await asyncio.to_thread(began.wait)
    caller.cancel()
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    assert asked == ["abort"]


async def test_results_and_errors_of_a_thread_reach_its_caller() -> None:
    def fail() -> None:
        raise OSError("full")

    assert await finish_in_thread(lambda: 7) == 7
    with pytest.raises(OSError, match="full"):
        await finish_in_thread(fail)


async def test_a_thread_works_in_the_context_of_its_caller() -> None:
    request: ContextVar[str] = ContextVar("request")
    request.set("R1")
    assert await finish_in_thread(request.get) == "R1"
    assert await finish_in_thread(request.get, "none") == "R1"
