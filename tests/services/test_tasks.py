"""Tasks end although something in them swallows cancellations."""

import asyncio

import pytest

from services import tasks as stopping
from services.tasks import stop


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
    async with asyncio.timeout(5):
        await stop(task, await _begun(0))
    assert task.cancelled()


async def test_no_task_stays_behind_a_caller_that_is_cancelled_itself() -> None:
    task = await _begun(3)
    stopping_it = asyncio.create_task(stop(task))
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
    await stop(task)
    assert isinstance(task.exception(), KeyError)
