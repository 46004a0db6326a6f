"""`/metrics` for Prometheus, on a port of its own.

It is not a route of the server: behind a proxy, or with several workers, any of the processes
answers a route, while each has counters of its own. Whoever reaches the port reads the metrics
without a credential, so it listens on loopback unless a setting says otherwise.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from graph.http.server import server_config
from services.gauges import exposition, read
from services.observability.metrics import EVENT_LOOP_LAG
from services.runtime import Runtime
from services.tasks import cancel_and_wait

_LAG_SECONDS = 0.25
"""Interval between two looks at the event loop: cheap, and no long pause is missed."""


def metrics_app(runtime: Runtime) -> Starlette:
    """Make the application that answers `/metrics` and nothing else.

    Args:
        runtime: The services whose state is read.
    """
    turn = asyncio.Lock()

    async def metrics(_request: Request) -> Response:
        """Answer all metrics of this process in the text format of Prometheus."""
        # One after the other: each asks MongoDB and Orthanc.
        async with turn:
            content = exposition(runtime, await read(runtime))
        return Response(content, headers={"Content-Type": CONTENT_TYPE_LATEST})

    return Starlette(routes=[Route("/metrics", metrics)])


class _Server(uvicorn.Server):
    """A server beside the main one, which handles the signals of the process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


@asynccontextmanager
async def serving_metrics(runtime: Runtime, listener: socket.socket | None) -> AsyncIterator[None]:
    """Serve `/metrics` while inside.

    Args:
        runtime: The services whose state is read.
        listener: Bound to the port; None: metrics are off.
    """
    if listener is None:
        yield
        return
    config = server_config(metrics_app(runtime), runtime.settings)
    config.lifespan = "off"
    config.timeout_graceful_shutdown = 1
    server = _Server(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]), name="metrics")
    watching = asyncio.create_task(_watch_event_loop(), name="event loop")
    try:
        yield
    finally:
        server.should_exit = True
        await asyncio.wait([serving])
        await cancel_and_wait(watching)


async def _watch_event_loop() -> None:
    loop = asyncio.get_running_loop()
    while True:
        due = loop.time() + _LAG_SECONDS
        await asyncio.sleep(_LAG_SECONDS)
        EVENT_LOOP_LAG.observe(max(0.0, loop.time() - due))
