"""Blocking work that a test holds, to see who waits for its thread."""

import asyncio
import threading

import pytest


class BlockedWork:
    """Called in a thread, it blocks until `may_end` is set."""

    def __init__(self) -> None:
        self.began = threading.Event()
        self.may_end = threading.Event()
        self.has_ended = False

    def __call__(self, *_: object, **__: object) -> None:
        self.began.set()
        self.may_end.wait()
        self.has_ended = True

    async def assert_waited_for(self, caller: "asyncio.Task[object]") -> None:
        """Cancel the caller while the thread works, and require that it waits for the thread."""
        await asyncio.to_thread(self.began.wait)
        for _ in range(10):
            caller.cancel()
            await asyncio.sleep(0)
        assert not caller.done()
        self.may_end.set()
        with pytest.raises(asyncio.CancelledError):
            await caller
        assert self.has_ended
