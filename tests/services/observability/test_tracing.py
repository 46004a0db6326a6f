"""Traces are off unless variables ask for them, and name neither patients nor texts of clients."""

import gzip
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import ClassVar

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from services.errors import NotFound
from services.observability.tracing import TRACING, Tracing, is_configured, tracing

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://collector:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:1"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_TRACES_EXPORTER": "otlp"}, False),
        ({"OTEL_SERVICE_NAME": "pacs"}, False),
    ],
)
def test_variables_of_opentelemetry_switch_traces_on(
    environment: dict[str, str], expected: bool
) -> None:
    assert is_configured(environment) is expected


def recorded(exporter: InMemorySpanExporter) -> dict[str, ReadableSpan]:
    return {span.name: span for span in exporter.get_finished_spans()}


def test_nothing_is_opened_while_traces_are_off() -> None:
    traces = Tracing()
    with traces.span("GraphQL query") as span:
        assert span is None
        assert traces.begin_command("find") is None
    traces.end_command(None)
    traces.stop()


def test_calls_are_spans_below_the_operation_of_the_callers_trace() -> None:
    exporter = InMemorySpanExporter()
    traces = Tracing()
    traces.start(SimpleSpanProcessor(exporter), version="1.2.3")
    with traces.span("GraphQL query", kind="SERVER", parent=PARENT):
        command = traces.begin_command("find")
        traces.end_command(command)
        assert traces.begin_command("getMore") is None
        with pytest.raises(NotFound), traces.span("Orthanc GET /studies/{id}", kind="CLIENT"):
            raise NotFound("There is no study of Mustermann^Max.")
    assert traces.begin_command("find") is None
    spans = recorded(exporter)
    traces.stop()
    assert set(spans) == {"GraphQL query", "MongoDB find", "Orthanc GET /studies/{id}"}
    operation = spans["GraphQL query"]
    assert operation.parent is not None
    assert f"{operation.parent.trace_id:032x}-{operation.parent.span_id:016x}" in PARENT
    assert operation.resource.attributes["service.name"] == "orthanc-graphql"
    for name in ("MongoDB find", "Orthanc GET /studies/{id}"):
        parent = spans[name].parent
        assert parent is not None
        assert operation.context is not None
        assert parent.span_id == operation.context.span_id
    failed = spans["Orthanc GET /studies/{id}"]
    assert failed.attributes == {"error.type": "NOT_FOUND"}
    assert not failed.status.is_ok
    # The messages of exceptions quote files and documents.
    assert all(span.events == () for span in spans.values())
    assert "Mustermann" not in "".join(span.to_json() for span in spans.values())


def test_the_name_of_the_service_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "pacs-east")
    exporter = InMemorySpanExporter()
    traces = Tracing()
    traces.start(SimpleSpanProcessor(exporter))
    with traces.span("GraphQL query"):
        pass
    traces.stop()
    assert recorded(exporter)["GraphQL query"].resource.attributes["service.name"] == "pacs-east"


class Collector(BaseHTTPRequestHandler):
    """What receives traces by OTLP over HTTP."""

    received: ClassVar[list[tuple[str, str, ExportTraceServiceRequest]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        self.received.append((self.path, self.headers["Content-Type"], request))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        return


def test_spans_go_to_the_collector_that_the_variables_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Collector.received.clear()
    with HTTPServer(("127.0.0.1", 0), Collector) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", url)
        monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        try:
            with tracing("1.2.3"), TRACING.span("GraphQL query", kind="SERVER"):
                pass
        finally:
            server.shutdown()
            thread.join()
    [(path, content_type, request)] = Collector.received
    assert (path, content_type) == ("/v1/traces", "application/x-protobuf")
    [resource] = request.resource_spans
    attributes = {one.key: one.value.string_value for one in resource.resource.attributes}
    assert attributes["service.name"] == "orthanc-graphql"
    assert attributes["service.version"] == "1.2.3"
    assert attributes["deployment.environment.name"] == "test"
    [span] = resource.scope_spans[0].spans
    assert span.name == "GraphQL query"
    with TRACING.span("after the end") as none:
        assert none is None


def test_a_collector_that_is_away_keeps_no_server_from_ending(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    may_end = threading.Event()

    class Hanging(SimpleSpanProcessor):
        def shutdown(self) -> None:
            may_end.wait()

    monkeypatch.setattr("services.observability.tracing.STOP_SECONDS", 0.01)
    traces = Tracing()
    traces.start(Hanging(InMemorySpanExporter()))
    traces.stop()
    may_end.set()
    assert [record.message for record in caplog.records] == [
        "traces are lost: the collector does not take them"
    ]
