"""`/metrics` has what an operator needs, on a port of its own, and says nothing of patients."""

import re
import socket
from collections.abc import AsyncIterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client.parser import text_string_to_metric_families
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file

from graph.routes.metrics import serving_metrics
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.ingest.service import SentFile
from services.observability.tracing import TRACING
from services.runtime import Runtime
from services.settings import Settings
from tests.real.sync_stage import eventually
from tests.real.test_subscriptions import subscribed
from tests.servers import RunningServer, settings_on

NAMES = Path(__file__).parents[2].joinpath("docs", "monitoring.md")

PATIENT_ID, PATIENT_NAME = "QX-31415", "Canary^Zyxwvut"


@pytest.fixture
def settings(mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc, tmp_path: Path) -> Settings:
    # The port is bound by the tests themselves: this one only has commands of MongoDB timed.
    return settings_on(mongodb, empty_orthanc, tmp_path, metrics_port=1)


@pytest.fixture
async def scraped(server: RunningServer) -> AsyncIterator[httpx.AsyncClient]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with (
            serving_metrics(server.runtime, listener),
            httpx.AsyncClient(base_url=url, timeout=30, trust_env=False) as http,
        ):
            yield http


async def samples(http: httpx.AsyncClient) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    response = await http.get("/metrics")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    return {
        (sample.name.removeprefix("orthanc_graphql_"), tuple(sorted(sample.labels.items()))): (
            sample.value
        )
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }


def picture() -> Dataset:
    dataset = dcmread(str(get_testdata_file("CT_small.dcm")))
    dataset.PatientID, dataset.PatientName = PATIENT_ID, PATIENT_NAME
    return dataset


async def store(runtime: Runtime, *datasets: Dataset) -> None:
    files = []
    for dataset in datasets:
        written = BytesIO()
        dataset.save_as(written)
        files.append(SentFile(PATIENT_NAME, partial(BytesIO, written.getvalue())))
    await runtime.ingest.store(files)


async def test_what_is_done_is_counted_without_a_word_about_patients(
    server: RunningServer, scraped: httpx.AsyncClient
) -> None:
    before = await samples(scraped)
    await store(server.runtime, picture())
    query = "query Canary($id: String) { studies(filter: {patientID: $id}) { nodes { id patient { \
        patientID } thumbnail { url } } } }"
    data: Any = await server.graphql(query, id=PATIENT_ID)
    url = data["studies"]["nodes"][0]["thumbnail"]["url"]
    for _ in range(2):
        assert (await server.http.get(url)).status_code == 200
    await server.http.get(f"/nowhere/{PATIENT_ID}")
    await server.http.request("PROPFIND", "/graphql")
    await server.http.post("/graphql", json={"query": "{ canary }"})
    response = await scraped.get("/metrics")
    after = await samples(scraped)

    def grown(name: str, **labels: str) -> float:
        key = (name, tuple(sorted(labels.items())))
        return after.get(key, 0.0) - before.get(key, 0.0)

    frames = {"route": "/frames/v2/{signed:path}", "method": "GET", "status": "200"}
    assert grown("http_requests_total", **frames) == 2
    assert grown("http_requests_total", route="(no route)", method="GET", status="404") == 1
    assert grown("http_request_duration_seconds_count", route="/graphql") == 3
    assert grown("http_requests_total", route="/graphql", method="other", status="405") == 1
    assert grown("graphql_operations_total", type="query", outcome="ok") == 1
    assert grown("graphql_operations_total", type="query", outcome="error") == 1
    assert grown("graphql_errors_total", code="GRAPHQL_VALIDATION_FAILED") == 1
    assert grown("upload_files_total", status="STORED") == 1
    assert grown("upload_bytes_total") > 30_000
    assert grown("upload_file_duration_seconds_count", stage="store") == 1
    assert grown("upload_file_duration_seconds_count", stage="index") == 1
    assert grown("frames_total", source="rendered", outcome="ok") == 1
    assert grown("frames_total", source="memory", outcome="ok") == 1
    assert grown("frame_render_duration_seconds_count", span="fetch") == 1
    assert grown("frame_render_duration_seconds_count", span="render") == 1
    assert grown("orthanc_request_duration_seconds_count", call="POST /instances") == 1
    assert grown("mongodb_command_duration_seconds_count", command="find") > 0
    assert after["frame_cache_bytes", ()] > 0
    assert after["orthanc_up", ()] == after["mongodb_up", ()] == 1
    assert after["orthanc_breaker_open", ()] == after["uploads_in_progress", ()] == 0
    text = response.text
    for secret in (PATIENT_ID, "Canary", "CANARY", picture().StudyInstanceUID, url.split("/")[-3]):
        assert secret not in text
    identifiers = re.findall(r'="[^"]*([0-9a-f]{8}-[0-9a-f]{8}|\d+\.\d+\.\d+\.\d+)[^"]*"', text)
    assert identifiers == []


async def test_every_metric_of_the_documentation_exists(
    server: RunningServer, scraped: httpx.AsyncClient
) -> None:
    await server.graphql("{ studies(first: 1) { totalCount } }")
    text = (await scraped.get("/metrics")).text
    families = re.findall(r"^# TYPE orthanc_graphql_(\w+)", text, re.MULTILINE)
    documented = re.findall(r"^\| `(\w+)` \|", NAMES.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(documented) == sorted(families)


async def test_the_port_answers_nothing_else_and_the_server_has_no_such_route(
    server: RunningServer, scraped: httpx.AsyncClient
) -> None:
    assert (await scraped.get("/graphql")).status_code == 404
    assert (await scraped.post("/metrics")).status_code == 405
    assert (await server.http.get("/metrics")).status_code == 404


async def test_an_open_subscription_is_a_gauge(
    server: RunningServer, scraped: httpx.AsyncClient
) -> None:
    async def is_open(expected: int) -> bool:
        return (await samples(scraped))["subscriptions_active", ()] == expected

    async with subscribed(server):
        await eventually(lambda: is_open(1))
    await eventually(lambda: is_open(0))


async def test_an_operation_and_its_calls_are_spans_and_nothing_below_them(
    server: RunningServer,
) -> None:
    await store(server.runtime, picture())
    exporter = InMemorySpanExporter()
    TRACING.start(SimpleSpanProcessor(exporter))
    parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    query = "{ studies { nodes { patientName series { instances { tags frames { url } } } } } }"
    try:
        answer = await server.http.post(
            "/graphql", json={"query": query}, headers={"traceparent": parent}
        )
        [study] = answer.json()["data"]["studies"]["nodes"]
        url = study["series"][0]["instances"][0]["frames"][0]["url"]
        assert (await server.http.get(url)).status_code == 200
        searched = await server.http.get("/dicomweb/studies", params={"PatientID": PATIENT_ID})
        assert len(searched.json()) == 1
        thumbnail = f"/dicomweb/studies/{picture().StudyInstanceUID}/thumbnail"
        assert (await server.http.get(thumbnail)).status_code == 200
    finally:
        spans = exporter.get_finished_spans()
        TRACING.stop()
    [operation] = [span for span in spans if span.name == "GraphQL query"]
    assert operation.parent is not None
    assert f"{operation.parent.span_id:016x}" == "b7ad6b7169203331"
    assert operation.attributes is not None
    assert operation.attributes["graphql.fields"] == ("studies",)
    assert operation.attributes["correlation.id"] == answer.headers["X-Request-ID"]
    [search] = [span for span in spans if span.name == "GET /dicomweb/studies"]
    assert search.context is not None
    of_search = [span for span in spans if span.context.trace_id == search.context.trace_id]
    assert {span.name for span in of_search} == {search.name, "MongoDB aggregate"}
    others = [span for span in spans if span is not operation and span not in of_search]
    assert {span.name for span in others} >= {
        "MongoDB find",
        "Orthanc POST /tools/bulk-content",
        "Orthanc GET /instances/{id}/file",
    }
    assert operation.context is not None
    for span in others:
        assert span.parent is not None
        assert span.parent.span_id == operation.context.span_id
    # One for each level of the tree, not for each field or picture.
    assert len(others) <= 10
    text = "".join(span.to_json() for span in spans)
    assert PATIENT_ID not in text
    assert "Canary" not in text
