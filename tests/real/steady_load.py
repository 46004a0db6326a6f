"""Requests at a steady pace, which do not wait for the answers to those before."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

_Answer = TypeVar("_Answer")

_MOST_IN_FLIGHT = 8
"""More unanswered requests would wait for one another, and measure how busy the machine is."""


@asynccontextmanager
async def steady(
    per_second: float, ask: Callable[[int], Awaitable[_Answer]]
) -> AsyncIterator[list[_Answer]]:
    """Send requests while the context is open, and wait for the last answers at its end.

    Args:
        per_second: Number of requests a second, unless `_MOST_IN_FLIGHT` are unanswered.
        ask: Called with 0, 1, 2 and so on. An exception of it ends the load.

    Yields:
        The answers so far, in the order of their arrival.
    """
    answers: list[_Answer] = []
    in_flight = asyncio.Semaphore(_MOST_IN_FLIGHT)

    async def keep(number: int) -> None:
        try:
            answers.append(await ask(number))
        finally:
            in_flight.release()

    async with asyncio.TaskGroup() as asked:

        async def go_on() -> None:
            for number in itertools.count():
                await in_flight.acquire()
                asked.create_task(keep(number))
                await asyncio.sleep(1 / per_second)

        pace = asked.create_task(go_on())
        yield answers
        pace.cancel()
