"""Following a change stream of MongoDB through fail-overs and lost histories."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import OperationFailure, PyMongoError

from services.tasks import HANGING_SECONDS, heartbeat

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
    """Follow a change stream until an event is set; every failure but a missing replica set ends.

    PyMongo often swallows a cancellation within a change stream, so the event ends the loop.

    Args:
        name: Of what changes, for the log and the heartbeat.
        open_stream: Opens the stream after a token of MongoDB; None: from now on.
        step: Takes the next changes; returns soon also when there are none.
        ended: Ends the following.
        on_open: Awaited whenever the stream has been opened.
        on_unsupported: Called when MongoDB is no replica set; then nothing more happens.
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
