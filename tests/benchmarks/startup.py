"""From the command until the server is ready, and what an import costs."""

import asyncio
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from services.embedded.mongod import run_mongod
from services.embedded.orthanc import run_orthanc
from services.frames.signing import generate_key
from tests.benchmarks.measurement import Bound
from tests.benchmarks.stage import open_server

_RUNS = 5
_EMBEDDED_SECONDS = 4.0
_GIVEN_SECONDS = 1.5
_IMPORT_SECONDS = 0.5


async def run() -> list[Bound]:
    """Measure starts on data that are there already, then the command line."""
    with tempfile.TemporaryDirectory() as folder:
        embedded = await _start_seconds(Path(folder))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        async with run_mongod(root / "mongodb") as mongod, run_orthanc(root / "orthanc") as orthanc:
            given = await _start_seconds(
                root / "data",
                MONGODB_URL=mongod.url,
                ORTHANC_URL=orthanc.url,
                ORTHANC_USERNAME=orthanc.username,
                ORTHANC_PASSWORD=orthanc.password,
                FRAME_URL_KEYS=generate_key(),
            )
    shown = await asyncio.to_thread(_seconds_of_python, "-m", "graph.cli", "--help")
    imported = await asyncio.to_thread(_seconds_of_python, "-c", "import graph, models, services")
    return [
        _bound("start with its own stores, warm data, until ready", embedded, _EMBEDDED_SECONDS),
        _bound("start against given servers, until ready", given, _GIVEN_SECONDS),
        _bound("orthanc-graphql --help", shown, _IMPORT_SECONDS),
        _bound("import graph, models, services", imported, _IMPORT_SECONDS),
    ]


def _bound(case: str, seconds: float, at_most: float) -> Bound:
    return Bound(case=case, value=seconds, unit="s", at_most=at_most)


async def _start_seconds(data_dir: Path, **environment: str) -> float:
    """Fill the stores by a first start, then start again and again."""
    async with open_server(data_dir, **environment, LOAD_SAMPLES="true"):
        pass
    times = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        async with open_server(data_dir, **environment):
            times.append(time.perf_counter() - began)
    return statistics.median(times)


def _seconds_of_python(*arguments: str) -> float:
    times = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # Python itself
        times.append(time.perf_counter() - began)
    return statistics.median(times)
