"""Orthanc's routes of frames: fetched by a thread that goes on with what came."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import TypeVar

from services.metrics import FRAME_SECONDS, ORTHANC_SECONDS, timed
from services.orthanc.connection_pool import ConnectionPool
from services.orthanc.identifiers import path_of
from services.orthanc.transport import CircuitBreaker
from services.tasks import finish_in_thread

T = TypeVar("T")

Fetch = Callable[[str], bytes]
"""Blocks until the body of a GET is there; see `ConnectionPool.get`."""


_CALL = "GET /instances/{id}/frames/{n}"


class OrthancFrames:
    """Frames as Orthanc gives them.

    The bytes of a frame never come to the event loop: they are turned into what is wanted in the
    thread that fetched them, so that a frame costs one change of thread.

    Args:
        fetch: Fetches a path.
        threads: Where to fetch.
        breaker: Refuses calls for a moment while Orthanc is away; None asks every time.
    """

    def __init__(
        self, fetch: Fetch, threads: Executor, *, breaker: CircuitBreaker | None = None
    ) -> None:
        self._fetch = fetch
        self._threads = threads
        self._guarded = breaker.guarded if breaker is not None else nullcontext

    async def get(
        self, instance_id: str, frame_index: int, route: str, use: Callable[[bytes], T]
    ) -> T:
        """`GET /instances/{id}/frames/{n}/{route}`.

        Args:
            instance_id: The instance.
            frame_index: 0-based.
            route: `numpy?rescale=false` for the decoded stored values as `.npy`; `raw` for
                the bytes of the frame as they are in the file; `preview` or `rendered` for
                Orthanc's own PNG.
            use: Turns the bytes into the result, in the thread that fetched them.

        Raises:
            OrthancNotFound: There is no such frame.
            OrthancRefused: Orthanc can't show this frame (HTTP 415).
            OrthancError: Orthanc can't decode it, or its subclass for what else went wrong.
        """
        path = path_of("instances", instance_id, f"frames/{int(frame_index)}/{route}")

        def fetch_and_use() -> T:
            # Pictures have no spans: a viewer asks for hundreds a second.
            with timed(FRAME_SECONDS, "fetch"), timed(ORTHANC_SECONDS, _CALL):
                fetched = self._fetch(path)
            return use(fetched)

        with self._guarded():
            return await asyncio.get_running_loop().run_in_executor(self._threads, fetch_and_use)


@asynccontextmanager
async def open_orthanc_frames(
    connections: ConnectionPool, *, threads: int, breaker: CircuitBreaker | None = None
) -> AsyncIterator[OrthancFrames]:
    """Run the threads that fetch frames; calls under way break off at the end.

    Args:
        connections: Closed at the end.
        threads: Frames at once.
        breaker: Refuses calls for a moment while Orthanc is away; None asks every time.
    """
    executor = ThreadPoolExecutor(threads, thread_name_prefix="frames")
    try:
        yield OrthancFrames(connections.get, executor, breaker=breaker)
    finally:
        connections.close()
        await finish_in_thread(partial(executor.shutdown, cancel_futures=True))
