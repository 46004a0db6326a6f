"""Orthanc's routes of frames: fetched by a thread that goes on with what came."""

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeVar

from services.errors import OrthancNotFound, OrthancUnavailable
from services.observability.metrics import FRAME_SECONDS, ORTHANC_SECONDS, timed
from services.orthanc.connection_pool import ConnectionPool
from services.orthanc.endpoints import Endpoints
from services.orthanc.identifiers import path_of
from services.tasks import finish_in_thread

T = TypeVar("T")

Fetch = Callable[[str], bytes]
"""Blocks until the body of a GET is there; see `ConnectionPool.get`."""


_FRAME = "GET /instances/{id}/frames/{id}/raw"
_FILE = "GET /instances/{id}/file"


class OrthancFrames:
    """Frames as Orthanc gives them.

    The bytes of a frame never come to the event loop: they are turned into what is wanted in the
    thread that fetched them, so that a frame costs one change of thread.

    Args:
        endpoints: Fetch a path, from one Orthanc each.
        threads: Where to fetch.
    """

    def __init__(self, endpoints: Endpoints[Fetch], threads: Executor) -> None:
        self._endpoints = endpoints
        self._threads = threads

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
        return await self._get(instance_id, path, _FRAME, use)

    async def file(self, instance_id: str, use: Callable[[bytes], T]) -> T:
        """`GET /instances/{id}/file`, for the only frame in it: Orthanc parses nothing.

        Args:
            instance_id: The instance.
            use: As for `get`.

        Raises:
            OrthancNotFound: There is no such instance.
            OrthancError: Its subclass for what else went wrong.
        """
        return await self._get(instance_id, path_of("instances", instance_id, "file"), _FILE, use)

    async def _get(self, instance_id: str, path: str, call: str, use: Callable[[bytes], T]) -> T:
        def fetch_and_use(fetch: Fetch) -> T:
            # Pictures have no spans: a viewer asks for hundreds a second.
            with timed(FRAME_SECONDS, "fetch"), timed(ORTHANC_SECONDS, call):
                fetched = fetch(path)
            return use(fetched)

        fault: OrthancUnavailable | None = None
        for endpoint in self._endpoints.ordered(instance_id):
            try:
                with endpoint.guarded():
                    return await asyncio.get_running_loop().run_in_executor(
                        self._threads, fetch_and_use, endpoint.connection
                    )
            except (OrthancUnavailable, OrthancNotFound) as exc:
                if not self._endpoints.may_ask_another(endpoint, exc):
                    raise
                fault = fault or (exc if isinstance(exc, OrthancUnavailable) else None)
        raise fault or OrthancUnavailable


@asynccontextmanager
async def open_orthanc_frames(
    connections: Endpoints[ConnectionPool], *, threads: int
) -> AsyncIterator[OrthancFrames]:
    """Run the threads that fetch frames; calls under way break off at the end.

    Args:
        connections: Closed at the end.
        threads: Frames at once.
    """
    executor = ThreadPoolExecutor(threads, thread_name_prefix="frames")
    try:
        yield OrthancFrames(connections.mapped(lambda pool: pool.get), executor)
    finally:
        for pool in connections:
            pool.close()
        await finish_in_thread(partial(executor.shutdown, cancel_futures=True))
