"""Following a change stream of MongoDB through fail-overs and lost histories."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from services.errors import Error
from services.tasks import HANGING_SECONDS, Supervisor, heartbeat

_log = logging.getLogger(__name__)

_RETRY_SECONDS = 1.0

_NO_REPLICA_SET = 40573
"""MongoDB's code for: change streams are only supported on replica sets."""

ChangeStream = AsyncChangeStream[dict[str, Any]]


async def _do_nothing() -> None:
    pass


async def follow_changes(
    name: str,
    open_stream: Callable[[Any], Awaitable[ChangeStream]],
    step: Callable[[ChangeStream], Awaitable[None]],
    ended: asyncio.Event,
    *,
    on_open: Callable[[], Awaitable[None]] = _do_nothing,
    on_unsupported: Callable[[], None] = lambda: None,
) -> None:
    """Follow a change stream until an event is set, through all failures but a missing replica set.

    PyMongo often swallows a cancellation within a change stream, so the event ends the loop.

    Args:
        name: Of the objects that change, for the log and the heartbeat.
        open_stream: Opens the stream after a token of MongoDB; None: from now on.
        step: Reads the next changes; returns soon also if there are none.
        ended: Ends the function.
        on_open: Awaited whenever the stream has been opened.
        on_unsupported: Called if MongoDB is not a replica set; the function then ends.
    """
    resume_after: Any = None
    with heartbeat(name) as alive:
        while not ended.is_set():
            alive.beat(HANGING_SECONDS)
            try:
                async with await open_stream(resume_after) as stream:
                    await on_open()
                    while not ended.is_set():
                        alive.beat(HANGING_SECONDS)
                        await step(stream)
                        resume_after = stream.resume_token
                        if not stream.alive:
                            # The collection was dropped: from now on it answers without waiting.
                            resume_after = None
                            break
            except OperationFailure as exc:
                if exc.code == _NO_REPLICA_SET:
                    on_unsupported()
                    alive.stop()
                    await ended.wait()
                    return
                # The history is gone: continue from now.
                resume_after = None
                _log.warning("the change stream of %s starts again: code %s", name, exc.code)
            except PyMongoError as exc:
                _log.warning("the change stream of %s waits: %s", name, type(exc).__name__)
            await asyncio.sleep(_RETRY_SECONDS)


class EventsUnavailable(Error):
    """MongoDB has no change streams."""

    code = "EVENTS_UNAVAILABLE"
    default_message = (
        "Events need a MongoDB that runs as a replica set (one node is enough). Poll instead."
    )


class SharedStream:
    """One change stream for all listeners of this process, open only while there are any.

    Args:
        name: Of the objects that change, for the log and the supervisor.
        open_stream: As for `follow_changes`.
        step: Likewise.
        supervisor: Of the background tasks of this process.
        on_open: Awaited whenever the stream has been opened.
    """

    def __init__(
        self,
        name: str,
        open_stream: Callable[[Any], Awaitable[ChangeStream]],
        step: Callable[[ChangeStream], Awaitable[None]],
        *,
        supervisor: Supervisor,
        on_open: Callable[[], Awaitable[None]] = _do_nothing,
    ) -> None:
        self._name = name
        self._open_stream = open_stream
        self._step = step
        self._supervisor = supervisor
        self._on_open = on_open
        self._users = 0
        self._turn = asyncio.Lock()
        self._watching: AsyncExitStack | None = None
        self._is_unavailable = False
        self._is_open = asyncio.Event()
        self._stop = asyncio.Event()

    @property
    def is_watching(self) -> bool:
        """Whether the stream is open or being opened."""
        return self._watching is not None

    @asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Keep the stream open; every change from here on reaches `step`.

        Raises:
            EventsUnavailable: MongoDB is not a replica set.
        """
        self._users += 1
        try:
            await self._ensure_watching()
            yield
        finally:
            self._users -= 1
            async with self._turn:
                if not self._users:
                    await self._close()

    async def close(self) -> None:
        """Stop watching."""
        async with self._turn:
            await self._close()

    async def _close(self) -> None:
        watching, self._watching = self._watching, None
        if watching is not None:
            # Callers that wait for the stream to open must not wait any longer.
            self._is_unavailable = True
            self._is_open.set()
            # Cancelling again would take 5 s: PyMongo often swallows a cancellation within a
            # change stream.
            self._stop.set()
            await watching.aclose()

    async def _ensure_watching(self) -> None:
        async with self._turn:
            if self._watching is None:
                self._is_open.clear()
                self._is_unavailable = False
                self._stop = stop = asyncio.Event()
                self._watching = AsyncExitStack()
                await self._watching.enter_async_context(
                    self._supervisor.running(self._name, lambda: self._watch(stop))
                )
        await self._is_open.wait()
        if self._is_unavailable:
            raise EventsUnavailable

    async def _watch(self, ended: asyncio.Event) -> None:
        async def on_open() -> None:
            await self._on_open()
            self._is_open.set()

        def on_unsupported() -> None:
            self._is_unavailable = True
            self._is_open.set()

        await follow_changes(
            self._name,
            self._open_stream,
            self._step,
            ended,
            on_open=on_open,
            on_unsupported=on_unsupported,
        )
