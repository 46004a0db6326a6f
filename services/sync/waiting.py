"""Waiting: for a while or until somebody rings, and for several calls at once."""

import asyncio
from collections.abc import Awaitable, Iterable
from typing import TypeVar, cast

_T = TypeVar("_T")


class Alarm:
    """A pause that can be cut short; a ring while nobody waits is kept."""

    def __init__(self) -> None:
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """End the present or the next wait."""
        self._rung.set()

    async def wait(self, seconds: float) -> bool:
        """Wait.

        Args:
            seconds: Longest wait.

        Returns:
            Whether somebody rang.
        """
        try:
            async with asyncio.timeout(seconds):
                await self._rung.wait()
        except TimeoutError:
            return False
        self._rung.clear()
        return True


async def wait_for_all(calls: Iterable[Awaitable[_T]]) -> list[_T]:
    """Wait for all calls, then raise the first error: none is left running behind the caller.

    Args:
        calls: What to wait for, at once.

    Returns:
        The results in the order of the calls.
    """
    outcomes = await asyncio.gather(*calls, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
    return cast("list[_T]", outcomes)
