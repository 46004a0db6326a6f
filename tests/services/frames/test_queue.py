import asyncio

import pytest

from services.errors import RenderQueueFull
from services.frames.queue import RenderQueue, RenderRate


class Renders:
    """Renders that hold their slot until they are let go, by name."""

    def __init__(self, queue: RenderQueue) -> None:
        self.queue = queue
        self.started: list[str] = []
        self.ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def start(self, *names: str) -> None:
        """Ask for slots; the first letter of a name is its instance."""
        for name in names:
            self.tasks[name] = asyncio.create_task(self._render(name))
            await self.settle()

    async def end(self, name: str) -> None:
        self.ends[name].set()
        await self.settle()

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)

    async def _render(self, name: str) -> None:
        async with self.queue.slot(name[0]):
            self.started.append(name)
            self.ends[name] = asyncio.Event()
            await self.ends[name].wait()


async def test_instances_take_turns_however_many_frames_one_of_them_wants() -> None:
    renders = Renders(RenderQueue(slots=1, size=20))
    await renders.start("a0", "a1", "a2", "a3", "b0", "c0", "b1")
    for name in ("a0", "a1", "b0", "c0", "a2", "b1", "a3"):
        assert renders.started[-1] == name
        await renders.end(name)
    await asyncio.gather(*renders.tasks.values())
    assert renders.queue.is_idle


async def test_a_full_queue_drops_the_newest_of_the_instance_that_wants_most() -> None:
    renders = Renders(RenderQueue(slots=1, size=3))
    await renders.start("a0", "a1", "a2", "a3", "b0")
    with pytest.raises(RenderQueueFull):
        await renders.tasks["a3"]
    await renders.start("a4", "c0")
    for refused in ("a4", "a2"):
        with pytest.raises(RenderQueueFull):
            await renders.tasks[refused]
    await renders.start("d0")
    with pytest.raises(RenderQueueFull):
        await renders.tasks["d0"]
    for name in ("a0", "a1", "b0", "c0"):
        assert renders.started[-1] == name
        await renders.end(name)
    assert renders.queue.is_idle


async def test_a_cancelled_waiter_gives_its_turn_and_its_slot_back() -> None:
    renders = Renders(RenderQueue(slots=1, size=5))
    await renders.start("a0", "b0", "c0", "d0")
    renders.tasks["b0"].cancel()
    await renders.settle()
    # Cancelled at the moment at which its turn comes.
    renders.ends["a0"].set()
    await renders.tasks["a0"]
    renders.tasks["c0"].cancel()
    await renders.settle()
    running = renders.started[-1]
    await renders.end(running)
    if running == "c0":
        await renders.end("d0")
    await asyncio.gather(*renders.tasks.values(), return_exceptions=True)
    assert "b0" not in renders.started
    assert renders.started[-1] == "d0"
    assert renders.queue.is_idle


def test_renderings_of_one_instance_are_bounded_in_time() -> None:
    now = [0.0]
    rate = RenderRate(per_second=10, burst=30, clock=lambda: now[0])
    for _ in range(30):
        rate.take("a")
    with pytest.raises(RenderQueueFull, match="Too many renderings of this instance"):
        rate.take("a")
    rate.take("b")
    now[0] += 0.5
    for _ in range(5):
        rate.take("a")
    with pytest.raises(RenderQueueFull):
        rate.take("a")
    now[0] += 60
    for _ in range(30):
        rate.take("a")
