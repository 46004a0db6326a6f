"""Traces by OpenTelemetry: one span for an operation and for each call of MongoDB and Orthanc.

Off unless one of the variables that OpenTelemetry defines asks for it (`is_configured`) and the
extra `otel` is installed. A tree of 2,000 pictures has 18,000 fields, and a viewer asks for
hundreds of pictures a second: neither fields nor pictures have spans. Spans hold names of commands,
routes and root fields; no identifier, no argument and no text of a client.
"""

import logging
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from importlib import import_module
from typing import Any

_log = logging.getLogger(__name__)

_OFF: AbstractContextManager[None] = nullcontext()

STOP_SECONDS = 3.0
"""The exporter itself tries for 20 s where no collector answers; what supervises the server would
kill it before the audit records are written."""

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")

_ROUTINE = frozenset({"hello", "isMaster", "ping", "getMore", "endSessions", "killCursors"})
"""Commands that are no part of a request, or the second part of one that has a span."""


def is_configured(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether variables of OpenTelemetry ask for traces.

    Args:
        environment: `OTEL_TRACES_EXPORTER` (`otlp`, `none`), an endpoint of OTLP, or
            `OTEL_SDK_DISABLED`.
    """
    if environment.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporter == "otlp" or (not exporter and any(environment.get(e) for e in _ENDPOINTS))


class Tracing:
    """Where spans go; nothing until `start`.

    Spans belong to the process, as its log does: the library keeps the current one in a context
    variable, and so tasks and threads find their parent.
    """

    def __init__(self) -> None:
        # Types of an extra, which need not be installed.
        self._api: Any = None
        self._tracer: Any = None
        self._provider: Any = None

    def start(self, *processors: Any, version: str = "") -> None:  # of the extra
        """Send spans from here on, as many of them as `OTEL_TRACES_SAMPLER` says.

        Args:
            processors: What receives spans; none: OTLP over HTTP as `OTEL_EXPORTER_OTLP_*` say.
            version: Of this program.

        Raises:
            ImportError: The extra `otel` is not installed.
        """
        api: Any = import_module("opentelemetry.trace")
        sdk: Any = import_module("opentelemetry.sdk.trace")
        resources: Any = import_module("opentelemetry.sdk.resources")
        resource = resources.Resource.create({"service.version": version})
        if resource.attributes["service.name"].startswith("unknown_service"):
            resource = resource.merge(resources.Resource({"service.name": "orthanc-graphql"}))
        provider = sdk.TracerProvider(resource=resource, shutdown_on_exit=False)
        for processor in processors or (_otlp(),):
            provider.add_span_processor(processor)
        self._api, self._provider = api, provider
        self._tracer = provider.get_tracer("orthanc_graphql", version)

    def stop(self) -> None:
        """Send what waits, and no span from here on; blocks for at most `STOP_SECONDS`."""
        provider, self._provider, self._tracer = self._provider, None, None
        if provider is None:
            return
        stopping = threading.Thread(target=provider.shutdown, name="traces", daemon=True)
        stopping.start()
        stopping.join(STOP_SECONDS)
        if stopping.is_alive():
            _log.warning("traces are lost: the collector does not take them")

    def span(
        self,
        name: str,
        *,
        kind: str = "INTERNAL",
        parent: str | None = None,
        attributes: Mapping[str, str] | None = None,
    ) -> AbstractContextManager[Any]:
        """Open a span for what is done inside; the context's value is the span, None while off.

        Args:
            name: What is done.
            kind: `SERVER`, `CLIENT` or `INTERNAL`.
            parent: The header `traceparent` of a request (W3C Trace Context), None: the span in
                which this happens.
            attributes: From closed sets.
        """
        if self._tracer is None:
            return _OFF
        return self._open(name, kind, parent, attributes)

    @contextmanager
    def _open(
        self, name: str, kind: str, parent: str | None, attributes: Mapping[str, str] | None
    ) -> Iterator[Any]:
        with self._tracer.start_as_current_span(
            name,
            context=_context_of(parent),
            kind=self._api.SpanKind[kind],
            attributes=dict(attributes or {}),
            # Messages of exceptions quote documents and files.
            record_exception=False,
            set_status_on_exception=False,
        ) as span:
            try:
                yield span
            except Exception as exc:
                self._mark(span, getattr(exc, "code", None) or type(exc).__name__)
                raise

    def begin_command(self, command: str) -> Any:  # noqa: ANN401  # a type of the extra
        """Begin the span of a command of MongoDB; None where it has none.

        Those of background tasks have none: they ask every half second.
        """
        if self._tracer is None or command in _ROUTINE:
            return None
        if not self._api.get_current_span().get_span_context().is_valid:
            return None
        return self._tracer.start_span(
            f"MongoDB {command}",
            kind=self._api.SpanKind.CLIENT,
            attributes={"db.system.name": "mongodb", "db.operation.name": command},
        )

    def end_command(self, span: Any, *, error: str | None = None) -> None:  # noqa: ANN401  # of the extra
        """End the span of a command.

        Args:
            span: From `begin_command`.
            error: Name of what went wrong, None: nothing.
        """
        if span is None:
            return
        if error is not None:
            self._mark(span, error)
        span.end()

    def _mark(self, span: Any, error: str) -> None:  # noqa: ANN401  # a type of the extra
        span.set_attribute("error.type", error)
        span.set_status(self._api.StatusCode.ERROR)


TRACING = Tracing()
"""The traces of this process."""


@contextmanager
def tracing(version: str) -> Iterator[None]:
    """Send traces while inside, where variables of OpenTelemetry ask for it.

    Args:
        version: Of this program.
    """
    if is_configured():
        try:
            TRACING.start(version=version)
        except ImportError:
            _log.warning(
                "OTEL_* variables ask for traces, but OpenTelemetry is not installed: "
                "pip install 'orthanc-graphql[otel]'"
            )
    try:
        yield
    finally:
        TRACING.stop()


def _otlp() -> Any:  # noqa: ANN401  # a type of the extra
    exporter: Any = import_module("opentelemetry.exporter.otlp.proto.http.trace_exporter")
    export: Any = import_module("opentelemetry.sdk.trace.export")
    return export.BatchSpanProcessor(exporter.OTLPSpanExporter())


def _context_of(parent: str | None) -> Any:  # noqa: ANN401  # a type of the extra
    if parent is None:
        return None
    tracecontext: Any = import_module("opentelemetry.trace.propagation.tracecontext")
    return tracecontext.TraceContextTextMapPropagator().extract({"traceparent": parent})
