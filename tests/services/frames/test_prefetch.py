import asyncio

import pytest

from services.frames.cache import FrameCache, FrameKey, InstanceCache
from services.frames.prefetch import LookAhead, Neighbours
from services.frames.queue import RenderQueue
from services.frames.records import RenderableInstance
from services.frames.variant import FrameVariant
from tests.graph.routes.stage import INSTANCE_ID, REVISION, IndexedInstance


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
        FrameCache(1_000), RenderQueue(1, 1), recent, Neighbours(following, recent), render
    )
    running = asyncio.create_task(ahead.run())
    ahead.follow(FrameKey(INSTANCE_ID, REVISION, 0, FrameVariant()))
    async with asyncio.timeout(5):
        await done.wait()
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert rendered == [1, 2]
    assert "OSError" in caplog.text
