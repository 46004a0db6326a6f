"""Cold frames beside Orthanc's own pictures; then the renderers, and the warm frames.

Every picture of a single frame is the first of its file: Orthanc reads and parses the file for
whoever asks. The file of the cine is parsed before the clock runs, for all.
"""

import asyncio
import itertools
import statistics
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tests.benchmarks import renderers, warm_frames
from tests.benchmarks.lean_client import LeanClient, open_lean_client
from tests.benchmarks.measurement import Line, Row, alternating_medians, seconds_of
from tests.benchmarks.orthanc_access import orthanc_access
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.studies import (
    cine_file,
    colour_cine_file,
    ct_files,
    radiograph_files,
)

_FILES = 40
"""Of each picture route; nobody has asked for pictures of them before."""
_ROUTES = 4
_IN_A_ROW = 4
"""Frames that one client asks for before the next rival has its turn. After 50 ms without work the
processors of a virtual machine sleep, and the next frame takes 3 ms longer, whoever sends it."""
_SIZE = 512
_FRAMES = 120
_AT_ONCE = 8
_COLOUR_FRAMES = 60
_RADIOGRAPHS = 12
"""Each is asked for once: half by us, half of Orthanc."""
_WINDOW = (1000, 2000)
"""Shows the whole gradient of the CT files, so that no rival has an easy picture to compress."""

_QUERY = """query ($center: Float, $width: Float) {
  studies { nodes { studyInstanceUID series { seriesInstanceUID instances {
    sopInstanceUID orthancInstanceId numberOfFrames rows frames {
      full: url(fullRange: true)
      windowed: url(windowCenter: $center, windowWidth: $width)
      default: url } } } } } }"""


@dataclass(frozen=True, slots=True)
class Image:
    """One instance: Orthanc's route, the DICOMweb route, and our URLs of each frame."""

    orthanc: str
    dicomweb: str
    frames: Sequence[dict[str, str]]


@dataclass(frozen=True, slots=True)
class _Rivals:
    ours: LeanClient
    orthanc: LeanClient


async def run() -> list[Line]:
    """Measure with cold caches, then with warm ones."""
    async with open_stage(FRAME_CACHE_BYTES="0") as stage, _rivals(stage) as rivals:
        count = _ROUTES * _FILES
        files = [
            *ct_files(count, size=_SIZE),
            cine_file(_FRAMES),
            colour_cine_file(_COLOUR_FRAMES),
            *radiograph_files(_RADIOGRAPHS),
        ]
        for content in files:
            (await stage.orthanc.post("/instances", content=content)).raise_for_status()
        await stage.wait_for_instances(len(files))
        images = await _all_images(stage, len(files))
        singles = [image for image in images if len(image.frames) == 1]
        cold = [
            *await _single_rows(rivals, singles[:count]),
            *await _cine_rows(rivals, _of_frames(images, _FRAMES)),
            await _colour_row(rivals, _of_frames(images, _COLOUR_FRAMES)),
            await _jpeg_2000_row(rivals, singles[count:]),
        ]
    return [*cold, *await renderers.run(), *await warm_frames.run()]


def _of_frames(images: Sequence[Image], count: int) -> Image:
    return next(image for image in images if len(image.frames) == count)


@asynccontextmanager
async def _rivals(stage: Stage) -> AsyncIterator[_Rivals]:
    orthanc_url, headers = orthanc_access(stage)
    async with (
        open_lean_client(str(stage.http.base_url), {}, connections=_AT_ONCE) as ours,
        open_lean_client(orthanc_url, headers, connections=_AT_ONCE) as orthanc,
    ):
        yield _Rivals(ours, orthanc)


async def _single_rows(rivals: _Rivals, images: Sequence[Image]) -> list[Row]:
    # Every fourth for each route: what Orthanc still holds of the last files is theirs alike.
    unseen = [iter(images[place::_ROUTES]) for place in range(_ROUTES)]

    def each(
        place: int, client: LeanClient, path: Callable[[Image], str]
    ) -> Callable[[], Awaitable[None]]:
        async def get_some() -> None:
            for image in itertools.islice(unseen[place], _IN_A_ROW):
                await client.get(path(image))

        return get_some

    center, width = _WINDOW
    rendered = f"frames/0/rendered?window-center={center}&window-width={width}"
    times = await alternating_medians(
        [
            each(0, rivals.ours, lambda image: image.frames[0]["full"]),
            each(1, rivals.orthanc, lambda image: f"{image.orthanc}/frames/0/preview"),
            each(2, rivals.ours, lambda image: image.frames[0]["windowed"]),
            each(3, rivals.orthanc, lambda image: f"{image.orthanc}/{rendered}"),
        ],
        runs=_FILES // _IN_A_ROW - 1,
    )
    full, preview, windowed, orthancs = (seconds / _IN_A_ROW for seconds in times)
    case = "cold frame 512x512 16-bit"
    return [
        _row(f"{case}, full range", full, "/preview", preview, goal=8),
        _row(f"{case}, windowed", windowed, "/rendered", orthancs, goal=0.5),
    ]


async def _cine_rows(rivals: _Rivals, cine: Image) -> list[Row]:
    numbers = range(len(cine.frames))
    previews = [f"{cine.orthanc}/frames/{index}/preview" for index in numbers]
    rendered = [f"{cine.dicomweb}/frames/{index + 1}/rendered" for index in numbers]
    urls = [frame["full"] for frame in cine.frames]
    # Orthanc reads and parses the file here, for all three.
    await _at_once(rivals.ours, urls)
    before = await seconds_of(lambda: _at_once(rivals.ours, urls))
    preview = await seconds_of(lambda: _at_once(rivals.orthanc, previews))
    between = await seconds_of(lambda: _at_once(rivals.ours, urls))
    wado = await seconds_of(lambda: _at_once(rivals.orthanc, rendered))
    after = await seconds_of(lambda: _at_once(rivals.ours, urls))
    ours = statistics.median([before, between, after])
    case = f"cold cine of {_FRAMES} frames, {_AT_ONCE} at a time"
    return [
        _row(case, ours, "/preview", preview, goal=20),
        _row(case, ours, "WADO-RS rendered", wado, goal=5),
    ]


async def _colour_row(rivals: _Rivals, cine: Image) -> Row:
    previews = [f"{cine.orthanc}/frames/{index}/preview" for index in range(len(cine.frames))]
    urls = [frame["default"] for frame in cine.frames]
    # Orthanc reads and parses the file here, for both.
    await _at_once(rivals.ours, urls)
    before = await seconds_of(lambda: _at_once(rivals.ours, urls))
    preview = await seconds_of(lambda: _at_once(rivals.orthanc, previews))
    after = await seconds_of(lambda: _at_once(rivals.ours, urls))
    ours = statistics.median([before, after])
    case = f"cold JPEG colour cine of {_COLOUR_FRAMES} frames, {_AT_ONCE} at a time"
    return _row(case, ours, "/preview", preview, goal=3)


async def _jpeg_2000_row(rivals: _Rivals, images: Sequence[Image]) -> Row:
    unseen = iter(images)
    times = await alternating_medians(
        [
            lambda: rivals.ours.get(next(unseen).frames[0]["default"]),
            lambda: rivals.orthanc.get(f"{next(unseen).orthanc}/frames/0/rendered"),
        ],
        runs=_RADIOGRAPHS // 2 - 1,
    )
    return _row("cold JPEG 2000 radiograph", times[0], "/rendered", times[1], goal=1.5)


async def _at_once(client: LeanClient, paths: Sequence[str]) -> None:
    await asyncio.gather(*(client.get(path) for path in paths))


def _row(case: str, ours: float, rival: str, theirs: float, *, goal: float) -> Row:
    return Row(case=case, ours_seconds=ours, rival=rival, rival_seconds=theirs, goal=goal)


async def _all_images(stage: Stage, count: int) -> list[Image]:
    """Return so many images when all are in the tree."""
    while True:
        if len(images := await _images(stage)) == count:
            return images
        await asyncio.sleep(0.1)


async def _images(stage: Stage) -> list[Image]:
    """Return all images: the CT files in their order, then the others."""
    center, width = _WINDOW
    data = await stage.graphql(_QUERY, {"center": center, "width": width})
    found: list[tuple[bool, Image]] = []
    for study in data["studies"]["nodes"]:
        for series in study["series"]:
            above = f"/dicom-web/studies/{study['studyInstanceUID']}"
            above = f"{above}/series/{series['seriesInstanceUID']}"
            found += [(one["rows"] != _SIZE, _image(one, above)) for one in series["instances"]]
    return [image for _, image in sorted(found, key=lambda pair: pair[0])]


def _image(instance: dict[str, Any], above: str) -> Image:
    return Image(
        f"/instances/{instance['orthancInstanceId']}",
        f"{above}/instances/{instance['sopInstanceUID']}",
        instance["frames"],
    )
