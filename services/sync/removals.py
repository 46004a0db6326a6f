"""Which instances were removed or replaced, told to every process by MongoDB's change stream.

The process that writes knows by itself; the others keep pictures in memory and on their disks.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import OperationFailure, PyMongoError

from models.instance import InstanceDocument
from services.stopping import stop
from services.sync.events import NO_REPLICA_SET

_log = logging.getLogger(__name__)

_PIPELINE: Sequence[Mapping[str, Any]] = [
    {
        "$match": {
            "$or": [
                {"operationType": {"$in": ["delete", "replace"]}},
                {"updateDescription.updatedFields.revision": {"$exists": True}},
            ]
        }
    },
    {"$project": {"documentKey": 1}},
]
_GATHER_SECONDS = 0.5
"""A study of thousands goes in few steps, each of which looks into folders."""

_RETRY_SECONDS = 1.0

Discard = Callable[[Collection[str]], None]


@asynccontextmanager
async def following_removals(
    database: AsyncDatabase[dict[str, Any]], discard: Discard
) -> AsyncIterator[None]:
    """Tell of removals while the block runs; without a replica set nothing is told.

    What happens while MongoDB is away for longer than it remembers is not told either.

    Args:
        database: Where the instances are.
        discard: Is given Orthanc's identifiers.
    """
    ended = asyncio.Event()
    instances = database[InstanceDocument.Settings.name]
    following = asyncio.create_task(_follow(instances, discard, ended), name="removals")
    try:
        yield
    finally:
        # PyMongo often swallows a cancellation within a change stream: the event ends the loop.
        ended.set()
        await stop(following)


async def _follow(
    instances: AsyncCollection[dict[str, Any]], discard: Discard, ended: asyncio.Event
) -> None:
    wait_ms = round(_GATHER_SECONDS * 1000)
    resume_after: Any = None
    while not ended.is_set():
        try:
            async with await instances.watch(
                _PIPELINE, max_await_time_ms=wait_ms, resume_after=resume_after
            ) as stream:
                while not ended.is_set():
                    if gone := await _gather(stream):
                        discard(gone)
                    resume_after = stream.resume_token
                    if not stream.alive:
                        # The collection was dropped: from now on it answers without waiting.
                        resume_after = None
                        break
        except OperationFailure as exc:
            if exc.code == NO_REPLICA_SET:
                return
            resume_after = None
            _log.warning("the change stream of instances starts again: code %s", exc.code)
        except PyMongoError as exc:
            _log.warning("the change stream of instances waits: %s", type(exc).__name__)
        await asyncio.sleep(_RETRY_SECONDS)


async def _gather(stream: AsyncChangeStream[dict[str, Any]]) -> list[str]:
    """Return what was removed in the next moment."""
    ends = asyncio.get_running_loop().time() + _GATHER_SECONDS
    gone: list[str] = []
    while (change := await stream.try_next()) is not None:
        gone.append(change["documentKey"]["_id"])
        if asyncio.get_running_loop().time() >= ends:
            break
        # A burst comes in one answer of MongoDB: others have their turns in between.
        await asyncio.sleep(0)
    return gone
