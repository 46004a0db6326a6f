"""Divides long work on the event loop into short turns, so that other requests are answered."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import TypeVar

TURN_SECONDS = 0.01
"""Longest turn; other requests wait for it, and for the turns of other operations."""

_MOST_AT_ONCE = 64
"""Most tasks that are resumed in one turn, because a task may take longer than the last ones."""

_QUIET_ITERATIONS = 4
"""Iterations of the event loop from a resumed task to the last load that its fields request."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class CooperativeExecution:
    """The turns of one operation, shared by its tasks.

    Ten thousand fields that were loaded together would all be resumed in one iteration of the event
    loop. Here they wait in a queue, and each iteration resumes as many as fill a turn.

    Args:
        clock: In seconds, rising.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = clock()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._at_once = 1

    async def yield_to_loop(self) -> None:
        """Wait for the caller's turn; return at once if no task waits and the turn is not over."""
        if not self._waiting and self._clock() - self._began < TURN_SECONDS:
            return
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[None] = loop.create_future()
        self._waiting.append(turn)
        if len(self._waiting) == 1:
            loop.call_soon(self._resume)
        await turn

    async def wait_idle(self) -> None:
        """Wait until no task of the operation waits for its turn or was just resumed."""
        quiet = 0
        while quiet < _QUIET_ITERATIONS:
            await asyncio.sleep(0)
            quiet = 0 if self._waiting else quiet + 1

    async def map(self, function: Callable[[_T], _R], items: Iterable[_T]) -> list[_R]:
        """Apply a function to items, in turns."""
        results = []
        for item in items:
            await self.yield_to_loop()
            results.append(function(item))
        return results

    def _resume(self) -> None:
        now = self._clock()
        # The time since the last turn includes other work of the loop, which shortens our turns.
        passed = now - self._began
        if passed > TURN_SECONDS:
            self._at_once = max(1, self._at_once // 2)
        elif passed < TURN_SECONDS / 2:
            self._at_once = min(_MOST_AT_ONCE, self._at_once * 2)
        self._began = now
        for _ in range(min(self._at_once, len(self._waiting))):
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
        if self._waiting:
            asyncio.get_running_loop().call_soon(self._resume)
