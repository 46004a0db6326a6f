"""Cold frames beside Orthanc's own pictures."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle

from tests.benchmarks.measuring import Row, alternating_medians, seconds_of
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.studies import cine_file, ct_files

_FILES = 40
_FRAMES = 120
_AT_ONCE = 8
_URLS = """{ studies { nodes { series { instances { orthancInstanceId numberOfFrames
  frames { url(fullRange: true) } } } } } }"""


async def run() -> list[Row]:
    """Measure single frames one at a time and a cine eight at a time; no cache is warm."""
    async with open_stage(FRAME_CACHE_BYTES="0") as stage:
        for content in [*ct_files(_FILES), cine_file(_FRAMES)]:
            (await stage.orthanc.post("/instances", content=content)).raise_for_status()
        await stage.wait_for_instances(_FILES + 1)
        singles, cine, cine_id = await _urls(stage)
        return [*await _single_rows(stage, singles), await _cine_row(stage, cine, cine_id)]


async def _single_rows(stage: Stage, singles: dict[str, str]) -> list[Row]:
    ours, theirs, rendered = cycle(singles.values()), cycle(singles), cycle(singles)

    async def frame() -> None:
        (await stage.http.get(next(ours))).raise_for_status()

    def orthanc(identifiers: "cycle[str]", route: str) -> Callable[[], Awaitable[None]]:
        async def get() -> None:
            path = f"/instances/{next(identifiers)}/frames/0/{route}"
            (await stage.orthanc.get(path)).raise_for_status()

        return get

    operations = [frame, orthanc(theirs, "preview"), orthanc(rendered, "rendered")]
    times = await alternating_medians(operations, runs=_FILES - 1)
    case = "cold frame 512x512 16-bit"
    return [
        Row(case=case, ours_seconds=times[0], rival="/preview", rival_seconds=times[1], goal=6),
        Row(case=case, ours_seconds=times[0], rival="/rendered", rival_seconds=times[2], goal=0.5),
    ]


async def _cine_row(stage: Stage, urls: Sequence[str], instance: str) -> Row:
    previews = [f"/instances/{instance}/frames/{index}/preview" for index in range(len(urls))]
    ours = await seconds_of(lambda: _at_once(stage.http.get, urls))
    theirs = await seconds_of(lambda: _at_once(stage.orthanc.get, previews))
    case = f"cold cine of {_FRAMES} frames, {_AT_ONCE} at a time"
    return Row(case=case, ours_seconds=ours, rival="/preview", rival_seconds=theirs, goal=20)


async def _at_once(get: Callable[[str], Awaitable[object]], paths: Sequence[str]) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(path: str) -> None:
        async with gate:
            await get(path)

    await asyncio.gather(*(one(path) for path in paths))


async def _urls(stage: Stage) -> tuple[dict[str, str], list[str], str]:
    data = await stage.graphql(_URLS)
    instances = [
        instance
        for study in data["studies"]["nodes"]
        for series in study["series"]
        for instance in series["instances"]
    ]
    cine = next(instance for instance in instances if instance["numberOfFrames"] > 1)
    singles = {
        instance["orthancInstanceId"]: instance["frames"][0]["url"]
        for instance in instances
        if instance["numberOfFrames"] == 1
    }
    return singles, [frame["url"] for frame in cine["frames"]], cine["orthancInstanceId"]
