"""How much is under way, and when nothing is."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class Traffic:
    """Counts what is under way."""

    def __init__(self) -> None:
        """Nothing is."""
        self._count = 0
        self._quiet = asyncio.Event()
        self._quiet.set()

    @contextmanager
    def one_more(self) -> Iterator[None]:
        """Count one more for as long as the context is open."""
        self._count += 1
        self._quiet.clear()
        try:
            yield
        finally:
            self._count -= 1
            if not self._count:
                self._quiet.set()

    async def wait_until_quiet(self) -> None:
        """Return when nothing is under way."""
        await self._quiet.wait()
