import asyncio
import tracemalloc
from functools import partial

import pytest

from services.errors import FrameNotRenderable
from services.frames.cache import FrameCache, FrameKey, RenderedFrame
from services.frames.variant import FrameVariant


def key(frame_index: int = 0, instance_id: str = "a") -> FrameKey:
    return FrameKey(instance_id, "deadbeef", frame_index, FrameVariant())


class Renders:
    def __init__(self) -> None:
        self.count = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> RenderedFrame:
        self.count += 1
        await self.gate.wait()
        return RenderedFrame.of(b"x" * 1000)


async def test_200_simultaneous_misses_are_one_render() -> None:
    cache, render = FrameCache(10_000), Renders()
    waiting = [asyncio.create_task(cache.get(key(), render)) for _ in range(200)]
    await asyncio.sleep(0)
    render.gate.set()
    frames = await asyncio.gather(*waiting)
    assert render.count == 1
    assert {id(frame) for frame in frames} == {id(cache.find(key()))}


async def test_a_cancelled_waiter_does_not_cancel_the_others() -> None:
    cache, render = FrameCache(10_000), Renders()
    first, second = (asyncio.create_task(cache.get(key(), render)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    render.gate.set()
    assert (await second).content == b"x" * 1000
    with pytest.raises(asyncio.CancelledError):
        await first


async def test_an_error_reaches_all_waiters_and_is_not_kept() -> None:
    cache, calls = FrameCache(10_000), 0

    async def fail() -> RenderedFrame:
        nonlocal calls
        calls += 1
        raise FrameNotRenderable

    outcomes = await asyncio.gather(
        *(cache.get(key(), fail) for _ in range(3)), return_exceptions=True
    )
    assert [type(outcome) for outcome in outcomes] == [FrameNotRenderable] * 3
    assert calls == 1
    with pytest.raises(FrameNotRenderable):
        await cache.get(key(), fail)
    assert calls == 2


async def test_the_least_recently_used_goes_first_and_the_bytes_stay_bounded() -> None:
    cache, render = FrameCache(4_100), Renders()
    render.gate.set()
    await cache.get(key(0), render)
    await cache.get(key(1), render)
    cache.find(key(0))
    await cache.get(key(2), render)
    assert [cache.find(key(index)) is not None for index in range(3)] == [True, False, True]
    assert cache.size_bytes <= 4_100


@pytest.mark.no_cover
async def test_5000_frames_take_no_more_memory_than_is_counted() -> None:
    cache = FrameCache(1_500_000)
    tracemalloc.start()
    for number in range(5_000):
        name = key(number, f"{number:08x}-4e5f6071-8293a4b5-c6d7e8f9-0a1b2c3d")
        await cache.get(name, partial(_new_frame, number))
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1_450_000 < cache.size_bytes <= 1_500_000
    assert taken <= cache.size_bytes


async def _new_frame(number: int) -> RenderedFrame:
    return RenderedFrame.of(number.to_bytes(500))


async def test_a_picture_larger_than_the_cache_is_answered_and_not_kept() -> None:
    cache, render = FrameCache(0), Renders()
    render.gate.set()
    assert (await cache.get(key(), render)).content
    assert not cache.knows(key())
    assert cache.size_bytes == 0


async def test_discarding_forgets_what_is_kept_and_what_is_on_its_way() -> None:
    cache, render = FrameCache(10_000), Renders()
    waiting = asyncio.create_task(cache.get(key(0), render))
    await asyncio.sleep(0)
    cache.discard("a")
    render.gate.set()
    await waiting
    await cache.get(key(1), render)
    await cache.get(key(1, "b"), render)
    cache.discard("a")
    assert [cache.knows(key(0)), cache.knows(key(1)), cache.knows(key(1, "b"))] == [
        False,
        False,
        True,
    ]
    assert cache.size_bytes == 1000 + 1024


async def test_closing_stops_what_is_being_rendered() -> None:
    cache, render = FrameCache(10_000), Renders()
    waiting = asyncio.create_task(cache.get(key(), render))
    await asyncio.sleep(0)
    await cache.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
