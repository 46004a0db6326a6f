"""Schemathesis on GraphQL and the REST routes of a server with data finds no fault of ours.

`make fuzz` does the same for longer.
"""

import asyncio
import json
import os
import sys
from asyncio.subprocess import PIPE, STDOUT
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from starlette.routing import Route

from graph.app import create_app
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.installation.demo_data import store_samples
from services.runtime import open_runtime
from services.settings import Settings
from tests.clients import http_client
from tests.patience import PATIENCE_SECONDS
from tests.servers import RunningServer, run_server, settings_on

_REPOSITORY = Path(__file__).parents[2]
_REST_API = Path(__file__).with_name("rest_api.json")
_PAGES = ("/static/", "/graphiql/", "/graphql")
_HOOKS = "tests.real.fuzzing_hooks"
_KNOWN_PROBABILITY = 0.7
"""How often a value is one that the server knows; otherwise schemathesis makes it up."""

_CASES_OF_LONG_RUNS = 100
"""From so many on it also makes chains of operations, minutes of them, other ones each time."""

_SHORT = ("--phases=coverage,fuzzing", "--seed=1")

_TREE = """{ studies { pageInfo { endCursor } nodes { id studyInstanceUID archiveUrl
  patient { id patientID } series { id seriesInstanceUID instances {
    id sopInstanceUID fileUrl frames(first: 1) { url } } } } } }"""

_BINDINGS = {
    "ids": ["Query.node.id"],
    "patients": ["Query.patient.patientID", "Query.studies.filter.patientID"],
    "studies": ["Query.study.studyInstanceUID", "path.studyUID"],
    "series": ["Query.series.seriesInstanceUID"],
    "instances": ["Query.instance.sopInstanceUID"],
    "cursors": ["Query.studies.after"],
    "grants": ["path.grant"],
    "objects": ["path.orthancInstanceId"],
    "revisions": ["path.revision"],
    "frames": ["path.frameIndex"],
    "pictures": ["path.picture"],
    "archives": ["path.archive"],
    "files": ["path.file"],
}
"""Where known values go, by their names in `known_values`."""


@pytest.fixture(scope="module")
async def server(
    mongodb: EmbeddedMongod, orthanc: EmbeddedOrthanc, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningServer]:
    """A server with the samples."""
    settings = settings_on(mongodb, orthanc, tmp_path_factory.mktemp("fuzzing"))
    async with open_runtime(settings) as runtime, run_server(settings, runtime) as running:
        await store_samples(runtime.ingest)
        yield running
        await runtime.database.client.drop_database(settings.mongodb_database)


async def known_values(server: RunningServer) -> dict[str, list[str]]:
    """Collect what the server knows, for schemathesis to ask for."""
    found: Any = await server.graphql(_TREE)
    studies = found["studies"]["nodes"]
    series = [one for study in studies for one in study["series"]]
    instances = [one for each in series for one in each["instances"]]
    frames = [frame["url"] for one in instances for frame in one["frames"]]
    signed = [urlsplit(url).path.split("/")[3:] for url in frames]
    files = [urlsplit(one["fileUrl"]).path.split("/")[3:] for one in instances]
    archives = [urlsplit(study["archiveUrl"]).path.split("/")[3:] for study in studies]
    patients = [study["patient"] for study in studies]
    return {
        "ids": [one["id"] for one in (*patients, *studies, *series, *instances)],
        "patients": [patient["patientID"] for patient in patients],
        "studies": [study["studyInstanceUID"] for study in studies],
        "series": [one["seriesInstanceUID"] for one in series],
        "instances": [one["sopInstanceUID"] for one in instances],
        "cursors": [found["studies"]["pageInfo"]["endCursor"]],
        # A grant fits one object: of one each, whole URLs come together often.
        "grants": [signed[0][0], archives[0][0], files[0][0]],
        "objects": [signed[0][1], files[0][1]],
        "revisions": [signed[0][2]],
        "frames": [signed[0][3]],
        "pictures": [signed[0][4]],
        "archives": [archives[0][1]],
        "files": [files[0][2]],
    }


def configuration(known: Mapping[str, Sequence[str]]) -> str:
    """Write schemathesis' configuration, in TOML."""
    lines = []
    for name, values in known.items():
        lines += [f"[dictionaries.{name}]", f"values = {json.dumps(list(values))}"]
    lines.append("[parameters]")
    for name, places in _BINDINGS.items():
        binding = f'{{ dictionary = "{name}", probability = {_KNOWN_PROBABILITY} }}'
        lines += [f'"{place}" = {binding}' for place in places]
    return "\n".join(lines)


async def fuzz(server: RunningServer, folder: Path, cases: int, *arguments: str) -> None:
    """Run schemathesis; fails with its report when it finds something."""
    settings = folder / "schemathesis.toml"
    settings.write_text(configuration(await known_values(server)), encoding="utf-8")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "schemathesis.cli", f"--config-file={settings}", "run"),
        *arguments,
        *(f"--max-examples={cases}", "--suppress-health-check=all", "--no-color"),
        f"--request-timeout={PATIENCE_SECONDS}",
        *(() if cases >= _CASES_OF_LONG_RUNS else _SHORT),
        cwd=folder,
        env=os.environ | {"SCHEMATHESIS_HOOKS": _HOOKS, "PYTHONPATH": str(_REPOSITORY)},
        stdout=PIPE,
        stderr=STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode != 0:
        pytest.fail(output.decode(), pytrace=False)


@pytest.fixture
def cases(request: pytest.FixtureRequest) -> int:
    """Cases for each operation."""
    return int(request.config.getoption("--fuzz-cases"))


@pytest.mark.no_cover
async def test_no_query_or_mutation_meets_an_unexpected_error(
    server: RunningServer, tmp_path: Path, cases: int
) -> None:
    await fuzz(server, tmp_path, cases, f"{server.url}/graphql", "--checks=not_an_unexpected_error")


@pytest.mark.no_cover
async def test_no_rest_route_meets_an_unexpected_error_or_answers_otherwise_than_described(
    server: RunningServer, tmp_path: Path, cases: int
) -> None:
    checks = (
        "not_an_unexpected_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "unsupported_method",
    )
    arguments = (str(_REST_API), f"--url={server.url}", f"--checks={','.join(checks)}")
    await fuzz(server, tmp_path, cases, *arguments)
    async with http_client(server.url) as http:
        assert (await http.get("/readyz")).is_success


def test_every_rest_route_is_described() -> None:
    described = json.loads(_REST_API.read_text(encoding="utf-8"))["paths"]
    found = {
        (method, route.path.partition("{")[0])
        for route in create_app(Settings(_env_file=None)).routes
        if isinstance(route, Route) and not route.path.startswith(_PAGES) and route.path != "/"
        for method in (route.methods or set()) - {"HEAD"}
    }
    assert found == {
        (method.upper(), path.partition("{")[0])
        for path, operations in described.items()
        for method in operations
    }
