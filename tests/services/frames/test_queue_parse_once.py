import asyncio
from dataclasses import replace

import pytest

from services.errors import RenderQueueFull
from services.frames.queue import ParseOnceGate
from tests.graph.routes.stage import IndexedInstance

CINE = IndexedInstance(number_of_frames=4)


class Frames:
    """Frames that are on their way until they are let go."""

    def __init__(self) -> None:
        self.now = 1.0
        self.first = ParseOnceGate(2, lambda: self.now)
        self.asked: list[int] = []
        self.answers: dict[int, asyncio.Future[None]] = {}

    async def ask(self, frame_index: int, instance: IndexedInstance = CINE) -> None:
        async with self.first.first_before_others(instance):
            self.asked.append(frame_index)
            self.answers[frame_index] = asyncio.get_running_loop().create_future()
            await self.answers[frame_index]

    async def start(
        self, *frame_indices: int, instance: IndexedInstance = CINE
    ) -> list["asyncio.Task[None]"]:
        tasks = [asyncio.create_task(self.ask(index, instance)) for index in frame_indices]
        await self.settle()
        return tasks

    async def settle(self) -> None:
        for _ in range(20):
            await asyncio.sleep(0)

    async def answer(self, *frame_indices: int) -> None:
        for index in frame_indices:
            self.answers[index].set_result(None)
        await self.settle()


async def test_others_wait_for_the_first_frame_and_then_go_at_once() -> None:
    frames = Frames()
    tasks = await frames.start(0, 1, 2)
    assert frames.asked == [0]
    await frames.answer(0)
    assert frames.asked == [0, 1, 2]
    await frames.answer(1, 2)
    await asyncio.gather(*tasks)


async def test_no_more_than_the_queue_holds_wait_for_the_first_frame() -> None:
    frames = Frames()
    first, *others = await frames.start(0, 1, 2, 3)
    with pytest.raises(RenderQueueFull):
        await others.pop()
    await frames.answer(0)
    await frames.answer(1, 2)
    await asyncio.gather(first, *others)


async def test_nobody_waits_within_a_minute_after_a_frame() -> None:
    frames = Frames()
    for seconds, at_once in [(0, [0]), (59, [1, 2]), (59, [3, 4]), (61, [5])]:
        frames.now += seconds
        frames.asked.clear()
        tasks = await frames.start(*range(at_once[0], at_once[0] + 2))
        assert frames.asked == at_once
        await frames.answer(*at_once)
        await frames.answer(*(set(frames.asked) - set(at_once)))
        await asyncio.gather(*tasks)


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_when_the_first_frame_fails_the_next_goes_alone(*, is_cancelled: bool) -> None:
    frames = Frames()
    first, *others = await frames.start(0, 1, 2)
    if is_cancelled:
        first.cancel()
    else:
        frames.answers[0].set_exception(ValueError())
    await frames.settle()
    assert frames.asked == [0, 1]
    await frames.answer(1)
    await frames.answer(2)
    await asyncio.gather(*others)
    with pytest.raises((ValueError, asyncio.CancelledError)):
        await first


@pytest.mark.parametrize(
    "other",
    [replace(CINE, id="other"), replace(CINE, revision="other"), IndexedInstance()],
)
async def test_other_files_and_single_frames_do_not_wait(other: IndexedInstance) -> None:
    frames = Frames()
    tasks = await frames.start(0, 1)
    tasks += await frames.start(2, instance=other)
    assert frames.asked == [0, 2]
    await frames.answer(0, 2)
    await frames.answer(1)
    await asyncio.gather(*tasks)
