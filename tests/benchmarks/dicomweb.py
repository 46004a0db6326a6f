"""DICOMweb beside Orthanc's own plugin."""

import asyncio
import statistics
import time
from collections.abc import Iterable
from functools import partial
from http import HTTPStatus

import httpx
import urllib3
from pydicom.uid import generate_uid

from tests.benchmarks.measurement import Line, Row, alternating_medians, seconds_of
from tests.benchmarks.orthanc_access import orthanc_access
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.studies import ct_files

_UID_ROOT = "1.2.826.0.1.3680043.8.498."
_SLICES = 600
_INSTANCES = 2_000
_PAGE = 500
_RUNS = 5
_STABLE_SECONDS = 5
_PREPARED_SECONDS = 15
_FRAME_RUNS = 60
_AT_ONCE = 4
_RIVAL = "Orthanc's DICOMweb plugin"
_STORED = 'multipart/related; type="application/octet-stream"; transfer-syntax=*'


async def run() -> list[Line]:
    """Measure metadata, searches, frames and pictures."""
    async with open_stage(STUDY_STABLE_SECONDS=str(_STABLE_SECONDS)) as stage:
        plugins = (await stage.orthanc.get("/plugins")).json()
        if "dicom-web" not in plugins:
            raise RuntimeError("Orthanc runs without its DICOMweb plugin")
        await _send(stage, ct_files(_SLICES, patient_id="PREPARED"))
        await _send(stage, ct_files(_SLICES, patient_id="METADATA"))
        await _send(stage, ct_files(_INSTANCES, size=32, patient_id="SEARCH"))
        await stage.wait_for_instances(2 * _SLICES + _INSTANCES)
        return [
            *await _metadata(stage),
            await _search(stage),
            await _frames(stage),
            await _rendered(stage),
        ]


async def _send(stage: Stage, files: Iterable[bytes]) -> None:
    slots = asyncio.Semaphore(_AT_ONCE)

    async def post(content: bytes) -> None:
        try:
            (await stage.orthanc.post("/instances", content=content)).raise_for_status()
        finally:
            slots.release()

    async with asyncio.TaskGroup() as group:
        for content in files:
            await slots.acquire()
            group.create_task(post(content))


def _study(patient_id: str) -> str:
    return f"/studies/{generate_uid(_UID_ROOT, entropy_srcs=[patient_id])}"


def _series(patient_id: str) -> str:
    uid = generate_uid(_UID_ROOT, entropy_srcs=[patient_id, "S0"])
    return f"{_study(patient_id)}/series/{uid}"


async def _ours(stage: Stage, path: str, accept: str = "*/*") -> httpx.Response:
    answer = await stage.http.get(f"/dicomweb{path}", headers={"Accept": accept})
    return answer.raise_for_status()


async def _theirs(stage: Stage, path: str, accept: str = "*/*") -> httpx.Response:
    answer = await stage.orthanc.get(f"/dicom-web{path}", headers={"Accept": accept})
    return answer.raise_for_status()


async def _metadata(stage: Stage) -> list[Row]:
    path, json = f"{_series('METADATA')}/metadata", "application/dicom+json"
    at_once = await seconds_of(partial(_ours, stage, path, json))
    # Its headers are prepared meanwhile: nobody has asked for them.
    await asyncio.sleep(_STABLE_SECONDS + _PREPARED_SECONDS)
    prepared = f"{_series('PREPARED')}/metadata"
    first = await seconds_of(partial(_ours, stage, prepared, json))
    ours, theirs = await alternating_medians(
        [partial(_ours, stage, path, json), partial(_theirs, stage, path, json)], runs=_RUNS
    )
    case = f"DICOMweb: metadata of a series of {_SLICES} CT"
    return [
        _row(f"{case}, first time, at once after arrival", at_once, theirs, goal=1),
        _row(f"{case}, first time, when the study is stable", first, theirs, goal=3),
        _row(case, ours, theirs, goal=10),
    ]


def _row(case: str, ours: float, theirs: float, *, goal: float) -> Row:
    return Row(case=case, ours_seconds=ours, rival=_RIVAL, rival_seconds=theirs, goal=goal)


async def _search(stage: Stage) -> Row:
    path = f"{_study('SEARCH')}/instances"

    async def pages() -> None:
        for offset in range(0, _INSTANCES, _PAGE):
            await _ours(stage, f"{path}?limit={_PAGE}&offset={offset}")

    ours, theirs = await alternating_medians([pages, partial(_theirs, stage, path)], runs=3)
    return Row(
        case=f"DICOMweb: search of {_INSTANCES} instances, in pages of {_PAGE}",
        ours_seconds=ours,
        rival=f"{_RIVAL}, in one",
        rival_seconds=theirs,
        goal=25,
    )


async def _instances(stage: Stage) -> list[str]:
    models = (await _ours(stage, f"{_series('METADATA')}/instances?limit={_PAGE}")).json()
    uids = [model["00080018"]["Value"][0] for model in models]
    return [f"{_series('METADATA')}/instances/{uid}" for uid in uids]


async def _frames(stage: Stage) -> Row:
    ours, theirs = await _each(stage, "frames/1", _STORED)
    return _row("DICOMweb: a frame of a CT", ours, theirs, goal=0.8)


async def _rendered(stage: Stage) -> Row:
    ours, theirs = await _each(stage, "rendered", "image/jpeg", first=1)
    return _row("DICOMweb: a rendered CT", ours, theirs, goal=5)


async def _each(stage: Stage, what: str, accept: str, *, first: int = 0) -> tuple[float, float]:
    """Ask for another instance each time, so that nobody has it in memory, nor has Orthanc.

    urllib3 costs a third of what httpx does, which costs as much as a frame.
    """
    instances = await _instances(stage)
    # Far apart, for pictures are rendered ahead.
    step = len(instances) // (2 * _FRAME_RUNS)
    chosen = instances[first::step][: 2 * _FRAME_RUNS]
    orthanc_url, access = orthanc_access(stage)
    ours = f"{stage.url}/dicomweb", {"Accept": accept}
    theirs = f"{orthanc_url}/dicom-web", access | {"Accept": accept}
    with urllib3.PoolManager(retries=False) as pool:

        def seconds(server: tuple[str, dict[str, str]], instance: str) -> float:
            began = time.perf_counter()
            url = f"{server[0]}{instance}/{what}"
            answer = pool.request("GET", url, headers=server[1])
            if answer.status != HTTPStatus.OK:
                raise RuntimeError(f"{answer.status}: {answer.data[:200]!r}")
            return time.perf_counter() - began

        times = [
            (seconds(ours, one), seconds(theirs, other))
            for one, other in zip(chosen[::2], chosen[1::2], strict=True)
        ]
    own, rival = zip(*times, strict=True)
    return statistics.median(own), statistics.median(rival)
