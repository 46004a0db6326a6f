"""DICOMweb beside Orthanc's own plugin."""

import asyncio
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from http import HTTPStatus
from typing import NamedTuple

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
_SCROLLED = 100
_IMAGES_A_SECOND = 25
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
        await _send(stage, ct_files(_INSTANCES, size=32, patient_id="SEARCH"))
        await _send(stage, ct_files(_SLICES, patient_id="METADATA"))
        await stage.wait_for_instances(2 * _SLICES + _INSTANCES)
        return [
            *await _metadata(stage),
            await _search(stage),
            *await asyncio.to_thread(_pictures, stage, await _instances(stage)),
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
        _row(f"{case}, first time, at once after arrival", at_once, theirs, goal=3),
        _row(f"{case}, first time, when the study is stable", first, theirs, goal=10),
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


def _pictures(stage: Stage, instances: Sequence[str]) -> list[Row]:
    """Measure frames and pictures; each instance is asked for once, by one of the two.

    So nobody has it in memory, nor has Orthanc.
    """
    frames = _In("frames/1", _STORED)
    rendered = _In("rendered", "image/jpeg")
    scrolled, seen = instances[: 2 * _SCROLLED], instances[2 * _SCROLLED :]
    with urllib3.PoolManager(retries=False) as pool:
        rivals = _rivals(stage, pool)
        # Backwards, for what follows is rendered ahead.
        cold = _in_turn(rivals, seen[1::2][::-1], rendered)
        stored = _in_turn(rivals, seen[0::2], frames)
        ours, theirs = (
            _median_of_scrolling(rival, part, rendered)
            for rival, part in zip(
                rivals, (scrolled[:_SCROLLED], scrolled[_SCROLLED:]), strict=True
            )
        )
    case = f"DICOMweb: a rendered CT, {_IMAGES_A_SECOND} a second as a viewer scrolls"
    return [
        _row("DICOMweb: a frame of a CT", *stored, goal=0.8),
        _row("DICOMweb: a rendered CT that nothing announced", *cold, goal=1),
        _row(case, ours, theirs, goal=5),
    ]


class _In(NamedTuple):
    """What is asked for, and in which form."""

    path: str
    accept: str


_Rival = Callable[[str, _In], float]
"""Is asked for something of an instance; returns the seconds that it took."""


def _rivals(stage: Stage, pool: urllib3.PoolManager) -> tuple[_Rival, _Rival]:
    """Return this server and Orthanc's plugin.

    urllib3 costs a third of what httpx does, which costs as much as a frame.
    """

    def seconds(root: str, headers: Mapping[str, str], instance: str, form: _In) -> float:
        began = time.perf_counter()
        url = f"{root}{instance}/{form.path}"
        answer = pool.request("GET", url, headers={**headers, "Accept": form.accept})
        if answer.status != HTTPStatus.OK:
            raise RuntimeError(f"{answer.status}: {answer.data[:200]!r}")
        return time.perf_counter() - began

    orthanc_url, access = orthanc_access(stage)
    ours = partial(seconds, f"{stage.url}/dicomweb", {})
    return ours, partial(seconds, f"{orthanc_url}/dicom-web", access)


def _in_turn(
    rivals: tuple[_Rival, _Rival], instances: Sequence[str], form: _In
) -> tuple[float, float]:
    times = [
        (rivals[0](one, form), rivals[1](other, form))
        for one, other in zip(instances[0::2], instances[1::2], strict=False)
    ]
    ours, theirs = zip(*times, strict=True)
    return statistics.median(ours), statistics.median(theirs)


def _median_of_scrolling(rival: _Rival, instances: Sequence[str], form: _In) -> float:
    times = []
    due = time.perf_counter()
    for instance in instances:
        time.sleep(max(0.0, due - time.perf_counter()))
        due += 1 / _IMAGES_A_SECOND
        times.append(rival(instance, form))
    return statistics.median(times)
