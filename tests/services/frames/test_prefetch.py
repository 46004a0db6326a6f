import asyncio

import pytest

from services.frames.cache import FrameCache, FrameKey, InstanceCache
from services.frames.prefetch import LookAhead, Neighbours
from services.frames.records import RenderableInstance
from services.frames.variant import FrameVariant
from tests.graph.routes.stage import INSTANCE_ID, REVISION, IndexedInstance
from tests.patience import PATIENCE_SECONDS


def idle() -> bool:
    return True


async def test_a_frame_that_breaks_the_code_does_not_end_the_looking_ahead(
    caplog: pytest.LogCaptureFixture,
) -> None:
    rendered: list[int] = []
    done = asyncio.Event()

    async def find(_instance_id: str) -> RenderableInstance:
        return IndexedInstance(number_of_frames=3)

    async def following(_instance: RenderableInstance, _limit: int) -> list[RenderableInstance]:
        return []

    async def render(_instance: RenderableInstance, key: FrameKey) -> None:
        rendered.append(key.frame_index)
        if key.frame_index == 1:
            raise OSError
        done.set()

    recent = InstanceCache(find)
    ahead = LookAhead(
        FrameCache(1_000),
        is_idle=idle,
        is_suspect=lambda _instance, _revision: False,
        instances=recent,
        neighbours=Neighbours(following, recent),
        render=render,
    )
    running = asyncio.create_task(ahead.run())
    ahead.follow(FrameKey(INSTANCE_ID, REVISION, 0, FrameVariant()))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await done.wait()
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert rendered == [1, 2]
    assert "OSError" in caplog.text


async def test_no_frame_of_an_instance_that_ended_a_renderer_is_rendered_unasked() -> None:
    asked: list[tuple[str, str]] = []
    judged = asyncio.Event()

    async def find(_instance_id: str) -> RenderableInstance:
        return IndexedInstance(number_of_frames=3)

    async def following(_instance: RenderableInstance, _limit: int) -> list[RenderableInstance]:
        return []

    async def render(_instance: RenderableInstance, _key: FrameKey) -> None:
        raise AssertionError

    def is_suspect(instance_id: str, revision: str) -> bool:
        asked.append((instance_id, revision))
        if len(asked) == 2:
            judged.set()
        return True

    recent = InstanceCache(find)
    ahead = LookAhead(
        FrameCache(1_000),
        is_idle=idle,
        is_suspect=is_suspect,
        instances=recent,
        neighbours=Neighbours(following, recent),
        render=render,
    )
    running = asyncio.create_task(ahead.run())
    ahead.follow(FrameKey(INSTANCE_ID, REVISION, 0, FrameVariant()))
    async with asyncio.timeout(PATIENCE_SECONDS):
        await judged.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert asked == [(INSTANCE_ID, REVISION)] * 2
