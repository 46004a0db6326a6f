"""A burst of removals, which MongoDB tells in one answer, leaves others their turns."""

import asyncio
from typing import TYPE_CHECKING, Any, cast

from services.sync.reconciler import _gather

if TYPE_CHECKING:
    from pymongo.asynchronous.change_stream import AsyncChangeStream


class Burst:
    """A change stream whose changes are all there: asking for one does not wait."""

    def __init__(self, count: int) -> None:
        self._left = count

    async def try_next(self) -> dict[str, Any] | None:
        if not self._left:
            return None
        self._left -= 1
        return {"documentKey": {"_id": str(self._left)}}


async def test_others_have_their_turns_while_a_burst_is_read() -> None:
    turns = 0

    async def take_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(take_turns())
    gone = await _gather(cast("AsyncChangeStream[dict[str, Any]]", Burst(1000)))
    other.cancel()
    assert len(gone) == 1000
    assert turns >= 1000
