"""`/metrics` for Prometheus, on a port of its own.

It is not a route of the server: behind a proxy, or with several workers, any of the processes
answers a route, while each has counters of its own. Whoever reaches the port reads the metrics
without a credential, so it listens on loopback unless a setting says otherwise.
"""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from platform import python_version

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from graph.http.server import server_config
from services.errors import DatabaseUnavailable
from services.health.checks import Health
from services.observability.metrics import EVENT_LOOP_LAG, REGISTRY, REQUESTS
from services.runtime import Runtime
from services.sync.status import FeedStatus
from services.tasks import cancel_and_wait

_PREFIX = "orthanc_graphql"

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
            content = _exposition(runtime, await _read(runtime))
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


@dataclass(frozen=True, slots=True)
class _Reading:
    """What has to be asked of others.

    Attributes:
        health: Of MongoDB and Orthanc.
        feed: None while PACS integration is off.
        index_faults: Instances that could not be indexed, None when that is unknown.
    """

    health: Health
    feed: FeedStatus | None = None
    index_faults: int | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Gauges(Collector):
    runtime: Runtime
    reading: _Reading

    def collect(self) -> Iterable[Metric]:
        build = {"version": version("orthanc-graphql"), "python": python_version()}
        yield InfoMetricFamily(f"{_PREFIX}_build", "What runs here.", value=build)
        for name, text, value in self._values():
            if value is not None:
                yield GaugeMetricFamily(f"{_PREFIX}_{name}", text, value=float(value))

    def _values(self) -> Iterable[tuple[str, str, float | None]]:
        runtime, feed = self.runtime, self.reading.feed
        parts, frames = self.reading.health.parts, runtime.frames.load
        orthanc = runtime.orthanc
        return [
            (
                "http_requests_in_progress",
                "Requests that are being answered.",
                REQUESTS.in_progress,
            ),
            (
                "frame_cache_bytes",
                "Memory of pictures that are kept, in bytes.",
                frames.cache_bytes,
            ),
            ("frame_queue_length", "Frames that wait to be rendered.", frames.waiting),
            (
                "frame_queue_limit",
                "Most frames that may wait, FRAME_QUEUE_SIZE.",
                runtime.settings.frame_queue_size,
            ),
            ("frames_quarantined", "Frames that are not rendered any more.", frames.quarantined),
            (
                "orthanc_up",
                "1: Orthanc answers; absent while PACS integration is off.",
                None if orthanc is None else parts["orthanc"].is_ready,
            ),
            ("mongodb_up", "1: MongoDB answers and takes writes.", parts["mongodb"].is_ready),
            (
                "orthanc_breaker_open",
                "1: calls of Orthanc are refused for a moment.",
                None if orthanc is None else orthanc.is_refusing,
            ),
            (
                "feed_is_following",
                "1: this process follows Orthanc; over all processes the sum is 1.",
                None if feed is None else feed.is_following,
            ),
            (
                "feed_behind_changes",
                "Changes in Orthanc that are not applied.",
                None if feed is None else feed.behind_changes,
            ),
            (
                "feed_behind_seconds",
                "Age of the oldest of them.",
                None if feed is None else feed.behind_seconds,
            ),
            ("index_faults", "Instances that could not be indexed.", self.reading.index_faults),
            ("jobs_running", "Jobs that this process runs.", runtime.job_runner.running),
            ("audit_records_waiting", "Audit records not written yet.", runtime.audit.waiting),
            (
                "background_tasks_failing",
                "Background tasks that fail or hang; `/api/status` names them.",
                len(self.reading.health.failing_tasks),
            ),
        ]


async def _read(runtime: Runtime) -> _Reading:
    """Ask MongoDB and Orthanc; never raises, and waits 3 s for each at most."""
    health, sync = await runtime.check_health(), runtime.sync
    if sync is None:
        return _Reading(health)
    faults: int | None = None
    if health.parts["mongodb"].is_ready:
        try:
            faults = await sync.reconciler.faults.count()
        except DatabaseUnavailable:
            faults = None
    return _Reading(health, await sync.status(), faults)


def _exposition(runtime: Runtime, reading: _Reading) -> bytes:
    """Return all metrics of this process in the text format of Prometheus."""
    gauges = CollectorRegistry()
    gauges.register(_Gauges(runtime, reading))
    return generate_latest(REGISTRY) + generate_latest(gauges)
