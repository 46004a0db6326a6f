"""Divides long work on the event loop into short turns, so that other requests are answered."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

TURN_SECONDS = 0.005
"""Longest turn. Each iteration of the event loop has one, however many operations there are: an
upload, which goes to Orthanc and to MongoDB many times, needs about a hundred iterations."""

_MOST_AT_ONCE = 64
"""Most tasks that are resumed in one turn, because a task may take longer than the last ones."""

_QUIET_ITERATIONS = 8
"""Iterations of the event loop from a resumed task to the last load that its fields request."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class _Rounds:
    """Gives the operations of one event loop their turns: one operation in each iteration."""

    def __init__(self) -> None:
        self._waiting: deque[CooperativeExecution] = deque()
        self._current: CooperativeExecution | None = None
        self._is_scheduled = False

    def join(self, operation: "CooperativeExecution") -> None:
        """Let an operation wait for its next turn."""
        self._waiting.append(operation)
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        # The tasks that the current operation resumed have run in this iteration, before this call.
        if self._current is not None:
            self._current.end_turn()
        self._current = self._waiting.popleft() if self._waiting else None
        self._is_scheduled = self._current is not None
        if self._current is not None:
            if self._current.begin_turn():
                self._waiting.append(self._current)
            asyncio.get_running_loop().call_soon(self._next)


_rounds: WeakKeyDictionary[asyncio.AbstractEventLoop, _Rounds] = WeakKeyDictionary()


class CooperativeExecution:
    """The turns of one operation, shared by its tasks.

    Ten thousand fields that were loaded together would all be resumed in one iteration of the event
    loop. Here they wait in a queue, and each turn resumes as many as fill it.

    Args:
        clock: The processor time of this thread, in seconds; time in which other processes run
            does not make a turn shorter.
    """

    def __init__(self, clock: Callable[[], float] = time.thread_time) -> None:
        self._clock = clock
        self._began = clock()
        self._waiting: deque[tuple[asyncio.Future[Any], object]] = deque()
        self._at_once = 1

    async def yield_to_loop(self) -> None:
        """Wait for the caller's turn; return at once if no task waits and the turn is not over."""
        if not self._waiting and self._clock() - self._began < TURN_SECONDS:
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.deliver(turn, None)
        await turn

    def deliver(self, waiter: asyncio.Future[_T], value: _T) -> None:
        """Set the result of a future in a later turn, so that the task that awaits it runs then."""
        self._waiting.append((waiter, value))
        if len(self._waiting) == 1:
            _rounds.setdefault(asyncio.get_running_loop(), _Rounds()).join(self)

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

    def begin_turn(self) -> bool:
        """Resume tasks, which run in the next iteration; return whether more are waiting."""
        self._began = self._clock()
        for _ in range(min(self._at_once, len(self._waiting))):
            waiter, value = self._waiting.popleft()
            if not waiter.done():
                waiter.set_result(value)
        return bool(self._waiting)

    def end_turn(self) -> None:
        """Adapt the number of tasks of the next turn to the time that these took."""
        # The time includes other work of the loop, which shortens our turns.
        passed = self._clock() - self._began
        if passed > TURN_SECONDS:
            self._at_once = max(1, self._at_once // 2)
        elif passed < TURN_SECONDS / 2:
            self._at_once = min(_MOST_AT_ONCE, self._at_once * 2)
