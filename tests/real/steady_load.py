"""Requests at a steady pace, whatever becomes of those before."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

_Answer = TypeVar("_Answer")


@asynccontextmanager
async def steady(
    per_second: float, ask: Callable[[int], Awaitable[_Answer]]
) -> AsyncIterator[list[_Answer]]:
    """Ask so often a second while inside, and wait for the last answers when left.

    Args:
        per_second: How often; nobody waits for the answers before.
        ask: Called with 0, 1, 2 and so on. What it raises ends the load.

    Yields:
        The answers until now, as they come.
    """
    answers: list[_Answer] = []

    async def keep(number: int) -> None:
        answers.append(await ask(number))

    async with asyncio.TaskGroup() as asked:

        async def go_on() -> None:
            for number in itertools.count():
                asked.create_task(keep(number))
                await asyncio.sleep(1 / per_second)

        pace = asked.create_task(go_on())
        yield answers
        pace.cancel()
