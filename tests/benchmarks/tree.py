"""A study tree of 2,000 instances with a signed URL each, beside four other ways to it."""

import asyncio
import json

import pydicom

from tests.benchmarks.lean_client import LeanClient, open_lean_client
from tests.benchmarks.measurement import Row, alternating_medians
from tests.benchmarks.orthanc_access import orthanc_access
from tests.benchmarks.rival_process import run_rival
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.studies import ct_files
from tests.benchmarks.tree_query import INSTANCES, SERIES, TREE

_CASE = f"tree of {INSTANCES} instances with URLs"
_RUNS = 9


async def run() -> list[Row]:
    """Measure the tree through HTTP."""
    async with open_stage() as stage:
        uid, study = await _fill(stage)
        return [
            *await _rows_of_many_requests(stage, uid, study),
            *await _rows_of_one_request(stage, uid, study),
        ]


async def _rows_of_many_requests(stage: Stage, uid: str, study: str) -> list[Row]:
    """Measure with an ordinary client: asking often costs a client time."""

    async def ours() -> None:
        data = await stage.graphql(TREE, {"uid": uid})
        if sum(len(series["instances"]) for series in data["study"]["series"]) != INSTANCES:
            raise RuntimeError("the tree is not complete")

    async def qido() -> None:
        path = f"/dicom-web/studies/{uid}/instances?limit={INSTANCES}"
        (await stage.orthanc.get(path)).raise_for_status()

    async def walking() -> None:
        answer = await stage.orthanc.get(f"/studies/{study}/series")
        for series in answer.json():
            for instance in series["Instances"]:
                await stage.orthanc.get(f"/instances/{instance}")

    tree, walk = await alternating_medians([ours, walking], runs=5)
    (slow,) = await alternating_medians([qido], runs=1)
    return [
        Row(case=_CASE, ours_seconds=tree, rival="QIDO-RS", rival_seconds=slow, goal=25),
        Row(case=_CASE, ours_seconds=tree, rival="walking REST", rival_seconds=walk, goal=10),
    ]


async def _rows_of_one_request(stage: Stage, uid: str, study: str) -> list[Row]:
    """Measure with a client that costs next to nothing."""
    orthanc_url, headers = orthanc_access(stage)
    body = json.dumps({"query": TREE, "variables": {"uid": uid}}).encode()
    async with (
        run_rival("tests.benchmarks.plain_strawberry") as plain_url,
        open_lean_client(stage.url, {}, connections=1) as ours,
        open_lean_client(orthanc_url, headers, connections=1) as orthanc,
        open_lean_client(plain_url, {}, connections=1) as plain,
    ):
        await _check_same_shape(ours, plain, body)
        tree, rest, objects = await alternating_medians(
            [
                lambda: ours.post("/graphql", body),
                lambda: orthanc.get(f"/studies/{study}/instances"),
                lambda: plain.post("/graphql", body),
            ],
            runs=_RUNS,
        )
    rival = "plain Strawberry, objects in memory"
    return [
        Row(case=_CASE, ours_seconds=tree, rival="REST list", rival_seconds=rest, goal=1 / 2),
        Row(case=_CASE, ours_seconds=tree, rival=rival, rival_seconds=objects, goal=1 / 1.5),
    ]


async def _check_same_shape(ours: LeanClient, plain: LeanClient, body: bytes) -> None:
    shapes = [_shape(json.loads(await one.post("/graphql", body))) for one in (ours, plain)]
    if shapes[0] != shapes[1]:
        raise RuntimeError("the plain server answers something else")


def _shape(answer: object) -> object:
    """Return names and lengths without values."""
    if isinstance(answer, dict):
        return {name: _shape(value) for name, value in answer.items()}
    if isinstance(answer, list):
        return [_shape(each) for each in answer]
    return None


async def _fill(stage: Stage) -> tuple[str, str]:
    files = list(ct_files(INSTANCES, series=SERIES, size=16))
    gate = asyncio.Semaphore(8)

    async def post(content: bytes) -> str:
        async with gate:
            answer = await stage.orthanc.post("/instances", content=content)
            return str(answer.raise_for_status().json()["ParentStudy"])

    studies = await asyncio.gather(*(post(content) for content in files))
    await stage.wait_for_instances(INSTANCES)
    header = pydicom.dcmread(pydicom.filebase.DicomBytesIO(files[0]), stop_before_pixels=True)
    return str(header.StudyInstanceUID), studies[0]
