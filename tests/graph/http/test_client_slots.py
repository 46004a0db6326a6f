"""What one client may hold at once, and how others of it wait."""

import asyncio
from contextlib import AsyncExitStack

import pytest

from graph.http.client_slots import ClientSlots
from services.errors import TooManyRequests
from tests.patience import PATIENCE_SECONDS

ANNA, BEN = ({"type": "http", "client": (f"192.0.2.{number}", 1)} for number in (1, 2))


async def test_who_holds_all_waits_and_keeps_nobody_else_waiting() -> None:
    slots = ClientSlots("downloads", 2, setting="ARCHIVES_PER_CLIENT")
    done: list[int] = []

    async def download(number: int) -> None:
        async with slots.turn(ANNA, seconds=PATIENCE_SECONDS):
            done.append(number)
            await asyncio.sleep(0)

    async with AsyncExitStack() as held:
        for _ in range(2):
            await held.enter_async_context(slots.turn(ANNA, seconds=0))
        waiting = [asyncio.create_task(download(number)) for number in range(5)]
        await asyncio.sleep(0)
        with pytest.raises(TooManyRequests, match="At most 2 downloads"):
            async with slots.turn(ANNA, seconds=0.01):
                pass
        with pytest.raises(TooManyRequests), slots.hold(ANNA):
            pass
        with slots.hold(BEN):
            assert done == []
        # Who gives up waiting takes nothing with it.
        waiting.pop().cancel()
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*waiting)
    assert done == [0, 1, 2, 3]
    assert not slots._held
