"""What Prometheus reads of the services at the moment when it asks."""

from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import version
from platform import python_version

from prometheus_client import generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector, CollectorRegistry

from services.errors import DatabaseUnavailable
from services.health import Health, check_health
from services.observability.metrics import REGISTRY, REQUESTS
from services.runtime import Runtime
from services.sync.status import FeedStatus

_PREFIX = "orthanc_graphql"


@dataclass(frozen=True, slots=True)
class Reading:
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
    reading: Reading

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


async def read(runtime: Runtime) -> Reading:
    """Ask MongoDB and Orthanc; never raises, and waits 3 s for each at most."""
    health, sync = await check_health(runtime), runtime.sync
    if sync is None:
        return Reading(health)
    faults: int | None = None
    if health.parts["mongodb"].is_ready:
        try:
            faults = await sync.reconciler.faults.count()
        except DatabaseUnavailable:
            faults = None
    return Reading(health, await sync.status(), faults)


def exposition(runtime: Runtime, reading: Reading) -> bytes:
    """Return all metrics of this process in the text format of Prometheus."""
    gauges = CollectorRegistry()
    gauges.register(_Gauges(runtime, reading))
    return generate_latest(REGISTRY) + generate_latest(gauges)
