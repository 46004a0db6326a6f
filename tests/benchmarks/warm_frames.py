"""Frames that are in the cache, and a player that finds them there."""

import asyncio
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.benchmarks.lean_client import open_lean_client, seconds_per_request
from tests.benchmarks.measurement import Bound, Line, Row
from tests.benchmarks.orthanc_access import orthanc_access
from tests.benchmarks.rival_process import run_rival
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.studies import cine_file, ct_files

_FILES = 60
_FRAMES = 100
_CONNECTIONS = 16
_SECONDS = 1.5
_RUNS = 3
_PLAYER_SECONDS = 1 / 25

_QUERY = """{ studies { nodes { series { instances {
  orthancInstanceId numberOfFrames frames { url } } } } } }"""


async def run() -> list[Line]:
    """Measure players on cold frames first, then what they left warm."""
    async with open_stage() as stage:
        for content in [*ct_files(_FILES), cine_file(_FRAMES)]:
            (await stage.orthanc.post("/instances", content=content)).raise_for_status()
        series = await _series(stage)
        cine = next(one for one in series if one[0]["numberOfFrames"] > 1)
        images = next(one for one in series if one[0]["numberOfFrames"] == 1)
        cine_urls = [frame["url"] for frame in cine[0]["frames"]]
        image_urls = [image["frames"][0]["url"] for image in images]
        return [
            await _player_row(stage, f"player, {_FRAMES} frames of one file", cine_urls),
            await _player_row(stage, f"player, {_FILES} images of a series", image_urls),
            *await _warm_rows(stage, image_urls[0], images[0]["orthancInstanceId"]),
        ]


async def _series(stage: Stage) -> list[list[dict[str, Any]]]:
    """Return the instances of each series when all are in the tree."""
    await stage.wait_for_instances(_FILES + 1)
    while True:
        data = await stage.graphql(_QUERY)
        series = [one["instances"] for s in data["studies"]["nodes"] for one in s["series"]]
        if sum(map(len, series)) == _FILES + 1:
            return series
        await asyncio.sleep(0.1)


async def _player_row(stage: Stage, case: str, urls: Sequence[str]) -> Bound:
    """Ask for a frame every 40 ms: one that comes later than the next one is due stutters."""
    times: list[float] = []
    async with open_lean_client(str(stage.http.base_url), {}, connections=1) as client:
        await client.get(urls[0])
        began = time.perf_counter()
        for place, url in enumerate(urls[1:], start=1):
            due = began + place * _PLAYER_SECONDS
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            await client.get(url)
            times.append(time.perf_counter() - due)
    return Bound(
        case=f"{case}, p95 at 25 frames/s",
        value=statistics.quantiles(times, n=20)[-1],
        unit="s",
        at_most=_PLAYER_SECONDS,
    )


async def _warm_rows(stage: Stage, url: str, instance: str) -> list[Row]:
    answer = (await stage.http.get(url)).raise_for_status()
    server = str(stage.http.base_url).rstrip("/")
    path = url.removeprefix(server)
    known = {"If-None-Match": answer.headers["etag"]}
    async with _bare_route(answer.content) as bare_server:
        warm, unchanged, bare = await _alternating(
            partial(_load, server, path, {}, 200),
            partial(_load, server, path, known, 304),
            partial(_load, bare_server, "/frame", {}, 200),
        )
    fastest = min([await _orthanc(stage, instance, route) for route in ("preview", "rendered")])
    case = f"warm frame, {_CONNECTIONS} connections"
    return [
        Row(case=case, ours_seconds=warm, rival="bare route", rival_seconds=bare, goal=0.5),
        Row(case=case, ours_seconds=warm, rival="Orthanc's PNG", rival_seconds=fastest, goal=3),
        Row(
            case=f"{case}, 304",
            ours_seconds=unchanged,
            rival="bare route",
            rival_seconds=bare,
            goal=0.8,
        ),
    ]


async def _alternating(*loads: "partial[float]") -> list[float]:
    runs = [[await asyncio.to_thread(load) for load in loads] for _ in range(_RUNS)]
    return [statistics.median(times) for times in zip(*runs, strict=True)]


def _load(url: str, path: str, headers: Mapping[str, str], status: int) -> float:
    return seconds_per_request(
        url, [path], headers=headers, status=status, connections=_CONNECTIONS, seconds=_SECONDS
    )


async def _orthanc(stage: Stage, instance: str, route: str) -> float:
    url, headers = orthanc_access(stage)
    path = f"/instances/{instance}/frames/0/{route}"
    return await asyncio.to_thread(partial(_load, url, path, headers, 200))


@asynccontextmanager
async def _bare_route(body: bytes) -> AsyncIterator[str]:
    with tempfile.NamedTemporaryFile() as file:
        await asyncio.to_thread(Path(file.name).write_bytes, body)
        async with run_rival("tests.benchmarks.bare_route", file.name) as url:
            yield url
