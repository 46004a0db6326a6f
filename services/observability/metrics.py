"""What this process counts and times for Prometheus.

The counters belong to the process, as loggers do: the code that does something counts it here. What
can be read at any time (sizes, queues, what answers) is read when Prometheus asks, by
`graph.routes.metrics`.

Labels come from closed sets: templates of routes, codes of errors, names of commands. None holds an
identifier, an address, a name or a text of a client.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
)
from prometheus_client.gc_collector import GCCollector
from prometheus_client.process_collector import ProcessCollector

from services.errors import Error

# A gauge beside each counter that says when it was made: Prometheus does not need it.
disable_created_metrics()  # type: ignore[no-untyped-call]  # of the library

REGISTRY = CollectorRegistry()
"""Of this process; apart from the library's own, to which any package may add."""

ProcessCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

_NAMESPACE = "orthanc_graphql"

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of durations: a warm frame takes 1 ms, the slowest query 10 s."""

_LONG_SECONDS = (0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0, 300.0, 900.0)
"""Of comparisons and of files: a file of several GiB takes minutes."""


def _counter(name: str, text: str, *labels: str) -> Counter:
    return Counter(name, text, labels, namespace=_NAMESPACE, registry=REGISTRY)


def _gauge(name: str, text: str) -> Gauge:
    return Gauge(name, text, namespace=_NAMESPACE, registry=REGISTRY)


def _histogram(
    name: str, text: str, *labels: str, bounds: tuple[float, ...] = SECONDS
) -> Histogram:
    return Histogram(name, text, labels, namespace=_NAMESPACE, buckets=bounds, registry=REGISTRY)


_REQUESTS = _counter(
    "http_requests", "Requests that were answered, by template of the route.",
    "route", "method", "status",
)  # fmt: skip
_REQUEST_SECONDS = _histogram(
    "http_request_duration_seconds", "From the first byte of a request to its answer.", "route"
)
OPERATIONS = _counter(
    "graphql_operations", "GraphQL operations by type and outcome.", "type", "outcome"
)
OPERATION_SECONDS = _histogram(
    "graphql_operation_duration_seconds", "Duration of queries and mutations.", "type"
)
_GRAPHQL_ERRORS = _counter("graphql_errors", "Errors in answers of GraphQL, by code.", "code")
EVENTS_DROPPED = _counter(
    "subscription_events_dropped", "Events that a slow subscriber did not get."
)
UPLOADED_FILES = _counter("upload_files", "DICOM files that were sent, by outcome.", "status")
UPLOADED_BYTES = _counter("upload_bytes", "Bytes of files that Orthanc took.")
UPLOAD_SECONDS = _histogram(
    "upload_file_duration_seconds",
    "Stages of an upload: `receive` a request, `store` a file in Orthanc, `index` it.",
    "stage",
    bounds=_LONG_SECONDS,
)
UPLOADS_IN_PROGRESS = _gauge("uploads_in_progress", "Uploads whose files are being stored.")
_FRAMES = _counter(
    "frames", "Pictures by where they came from (memory, rendered, ahead) and outcome.",
    "source", "outcome",
)  # fmt: skip
FRAME_SECONDS = _histogram(
    "frame_render_duration_seconds",
    "Parts of a rendering: `queue` for a slot, `fetch` the bytes, `render` (decode and encode).",
    "span",
)
ORTHANC_SECONDS = _histogram(
    "orthanc_request_duration_seconds", "Calls of Orthanc by template of the route.", "call"
)
MONGODB_SECONDS = _histogram(
    "mongodb_command_duration_seconds", "Commands of MongoDB by name.", "command"
)
COMPARISON_SECONDS = _histogram(
    "comparison_duration_seconds",
    "Comparisons of the index with Orthanc, of a `slice` or of the `whole`.",
    "extent",
    bounds=_LONG_SECONDS,
)
COMPARED_AT = _gauge(
    "comparison_last_success_timestamp_seconds",
    "When this process last compared the index with Orthanc; 0: it has not.",
)
SUBSCRIPTIONS = _gauge("subscriptions_active", "Subscriptions that are open.")
COMPARISON_REPAIRS = _counter(
    "comparison_repairs", "What comparisons had to repair, by kind.", "kind"
)
JOBS = _counter("jobs", "Jobs that ended, by kind and state.", "kind", "state")
AUDIT_LOST = _counter("audit_records_lost", "Audit records that could not be written.")
EVENT_LOOP_LAG = _histogram(
    "event_loop_lag_seconds", "How much later than planned the event loop runs a timer."
)

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "WEBSOCKET"})
_OTHER = "other"


class RequestMetrics:
    """Counts requests: 3 µs each, as the children of the metrics are looked up once."""

    def __init__(self) -> None:
        self.in_progress = 0
        """Requests and WebSockets that are being answered."""
        self._counters: dict[tuple[str, str, int], Counter] = {}
        self._durations: dict[str, Histogram] = {}

    def record(self, route: str, method: str, status: int, seconds: float) -> None:
        """Count a request that was answered.

        Args:
            route: Template of the route, never a path.
            method: Of HTTP, or WEBSOCKET; clients may send any text, so unknown ones are `other`.
            status: HTTP status.
            seconds: How long it took; that of a WebSocket is not recorded.
        """
        key = (route, method if method in _METHODS else _OTHER, status)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = _REQUESTS.labels(route, key[1], str(status))
        counter.inc()
        if method != "WEBSOCKET":
            duration = self._durations.get(route)
            if duration is None:
                duration = self._durations[route] = _REQUEST_SECONDS.labels(route)
            duration.observe(seconds)


REQUESTS = RequestMetrics()
"""All requests of this process."""


class FrameMetrics:
    """Counts pictures."""

    def __init__(self) -> None:
        # This one is counted thousands of times a second.
        self._from_memory = _FRAMES.labels("memory", "ok")

    def found(self) -> None:
        """Count a picture that was in memory."""
        self._from_memory.inc()

    @contextmanager
    def rendering(self, *, is_ahead: bool) -> Iterator[None]:
        """Count a picture that is rendered while inside, with the code of what it raises.

        Args:
            is_ahead: It was not asked for yet.
        """
        with _counted(_FRAMES, "ahead" if is_ahead else "rendered"):
            yield


FRAMES = FrameMetrics()
"""All pictures of this process."""


@contextmanager
def _counted(counter: Counter, *labels: str) -> Iterator[None]:
    outcome = "cancelled"
    try:
        yield
        outcome = "ok"
    except Exception as exc:
        outcome = code_label(exc.code if isinstance(exc, Error) else Error.code)
        raise
    finally:
        counter.labels(*labels, outcome).inc()


@contextmanager
def timed(histogram: Histogram, label: str) -> Iterator[None]:
    """Time what is done inside, whether it fails or not."""
    started = perf_counter()
    try:
        yield
    finally:
        histogram.labels(label).observe(perf_counter() - started)


def count_graphql_error(code: object) -> None:
    """Count an error in an answer of GraphQL by its code."""
    _GRAPHQL_ERRORS.labels(code_label(code)).inc()


_GRAPHQL_CODES = frozenset(
    {
        "GRAPHQL_PARSE_FAILED",
        "GRAPHQL_VALIDATION_FAILED",
        "PERSISTED_QUERY_NOT_SUPPORTED",
        "METHOD_NOT_ALLOWED",
    }
)


def code_label(code: object) -> str:
    """Return the code of an error as a label; `other` for one outside the closed set."""
    return str(code) if code in _GRAPHQL_CODES or code in _codes(Error) else _OTHER


def _codes(error: type[Error]) -> set[str]:
    return {error.code}.union(*(_codes(below) for below in error.__subclasses__()))
