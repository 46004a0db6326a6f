"""A study tree of 2,000 instances with a signed URL each, beside QIDO-RS and Orthanc's REST."""

import asyncio

import pydicom

from tests.benchmarks.measuring import Row, alternating_medians
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.studies import ct_files

_INSTANCES = 2000
_TREE = """query Tree($uid: String!) { study(studyInstanceUID: $uid) { studyDate
  series { seriesNumber modality instances { sopInstanceUID instanceNumber rows columns
    windowCenter windowWidth numberOfFrames frame { url } } } } }"""


async def run() -> list[Row]:
    """Measure the tree through HTTP."""
    async with open_stage() as stage:
        uid, study = await _fill(stage)

        async def ours() -> None:
            data = await stage.graphql(_TREE, {"uid": uid})
            if sum(len(series["instances"]) for series in data["study"]["series"]) != _INSTANCES:
                raise RuntimeError("the tree is not complete")

        async def qido() -> None:
            path = f"/dicom-web/studies/{uid}/instances?limit={_INSTANCES}"
            (await stage.orthanc.get(path)).raise_for_status()

        async def listing() -> None:
            (await stage.orthanc.get(f"/studies/{study}/instances")).raise_for_status()

        async def walking() -> None:
            answer = await stage.orthanc.get(f"/studies/{study}/series")
            for series in answer.json():
                for instance in series["Instances"]:
                    await stage.orthanc.get(f"/instances/{instance}")

        tree, rest, walk = await alternating_medians([ours, listing, walking], runs=5)
        (slow,) = await alternating_medians([qido], runs=1)
    case = f"tree of {_INSTANCES} instances with URLs"
    return [
        Row(case=case, ours_seconds=tree, rival="QIDO-RS", rival_seconds=slow, goal=25),
        Row(case=case, ours_seconds=tree, rival="walking REST", rival_seconds=walk, goal=10),
        Row(case=case, ours_seconds=tree, rival="REST list", rival_seconds=rest, goal=0.5),
    ]


async def _fill(stage: Stage) -> tuple[str, str]:
    files = list(ct_files(_INSTANCES, series=4, size=16))
    gate = asyncio.Semaphore(8)

    async def post(content: bytes) -> str:
        async with gate:
            answer = await stage.orthanc.post("/instances", content=content)
            return str(answer.raise_for_status().json()["ParentStudy"])

    studies = await asyncio.gather(*(post(content) for content in files))
    await stage.wait_for_instances(_INSTANCES)
    header = pydicom.dcmread(pydicom.filebase.DicomBytesIO(files[0]), stop_before_pixels=True)
    return str(header.StudyInstanceUID), studies[0]
