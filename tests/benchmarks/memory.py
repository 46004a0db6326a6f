"""What large uploads, large trees and many frames cost the server's process in memory."""

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pydicom

from services.embedded.mongod import run_mongod
from tests.benchmarks.lean_client import open_lean_client
from tests.benchmarks.measurement import Bound
from tests.benchmarks.stage import Stage, open_index_stage, open_stage
from tests.benchmarks.studies import cine_file
from tests.benchmarks.synthetic_index import IndexSize, study_uid
from tests.benchmarks.tree_query import TREE

_MEGABYTE = 1_000_000
_UPLOAD_BYTES = 1024**3
_UPLOAD_MEGABYTES = 64
_TREE = IndexSize(studies=2, series=4, instances=2500)
_TREE_MEGABYTES = 150
_CACHE_BYTES = 64 * 1024**2
_CACHE_SHARE = 1.5
"""Of the cache's setting: what the allocator and the frames under way may add."""
_FRAMES = 250
_WINDOWS = 20
_AT_ONCE = 8
_SIZE = 256

_UPLOAD = """mutation ($file: Upload!) { uploadDicom(files: [$file]) { storedCount } }"""
_URLS = """query ($center: Float) { studies { nodes { series { instances {
  frames { url(windowCenter: $center, windowWidth: 2000) } } } } } }"""


async def run() -> list[Bound]:
    """Measure the growth of the largest memory that was in use."""
    return [await _upload(), await _tree(), await _cache()]


async def _upload() -> Bound:
    async with open_stage() as stage, _large_file() as path:
        grown = await _growth(stage.pid, lambda: _send(stage, path))
    gigabytes = _UPLOAD_BYTES / 1024**3
    return _bound(f"upload of one file of {gigabytes:g} GiB", grown, _UPLOAD_MEGABYTES)


async def _tree() -> Bound:
    body = json.dumps({"query": TREE, "variables": {"uid": study_uid(1)}}).encode()
    with tempfile.TemporaryDirectory() as folder:
        async with (
            run_mongod(Path(folder)) as mongod,
            open_index_stage(mongod, _TREE) as stage,
            open_lean_client(stage.url, {}, connections=1) as client,
        ):
            grown = await _growth(stage.pid, lambda: client.post("/graphql", body))
    return _bound(f"tree of {_TREE.series * _TREE.instances} instances", grown, _TREE_MEGABYTES)


async def _cache() -> Bound:
    async with open_stage(FRAME_CACHE_BYTES=str(_CACHE_BYTES)) as stage:
        content = cine_file(_FRAMES, size=_SIZE)
        (await stage.orthanc.post("/instances", content=content)).raise_for_status()
        await stage.wait_for_instances(1)
        urls = [url for center in range(_WINDOWS) for url in await _frame_urls(stage, center)]
        grown = await _growth(stage.pid, lambda: _look_at(stage, urls))
    case = f"{_FRAMES * _WINDOWS} frames through a cache of {_CACHE_BYTES // 1024**2} MiB"
    return _bound(case, grown, _CACHE_SHARE * _CACHE_BYTES / _MEGABYTE)


def _bound(case: str, grown: float, at_most: float) -> Bound:
    return Bound(case=f"memory: {case}", value=grown, unit="MB", at_most=at_most)


async def _growth(pid: int, operation: Callable[[], Awaitable[object]]) -> float:
    """Do something; answers by how many MB it made the process larger at most."""
    _forget_largest(pid)
    before = _megabytes(pid, "VmRSS")
    await operation()
    return _megabytes(pid, "VmHWM") - before


def _forget_largest(pid: int) -> None:
    # proc(5), clear_refs: 5 sets VmHWM to what is in use now.
    Path(f"/proc/{pid}/clear_refs").write_text("5", encoding="ascii")


def _megabytes(pid: int, name: str) -> float:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    kibibytes = next(line.split()[1] for line in lines if line.startswith(f"{name}:"))
    return int(kibibytes) * 1024 / _MEGABYTE


@asynccontextmanager
async def _large_file() -> AsyncIterator[Path]:
    """Write one multi-frame file without holding it in memory."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.dcm"
        await asyncio.to_thread(_write_large, path)
        yield path


def _write_large(path: Path) -> None:
    dataset = pydicom.dcmread(pydicom.filebase.DicomBytesIO(cine_file(1)))
    dataset.NumberOfFrames = _UPLOAD_BYTES // (dataset.Rows * dataset.Columns * 2)
    with tempfile.TemporaryFile() as pixels:
        pixels.truncate(_UPLOAD_BYTES)
        dataset.PixelData = pixels
        dataset.save_as(path)


async def _send(stage: Stage, path: Path) -> None:
    operations = {"query": _UPLOAD, "variables": {"file": None}}
    with path.open("rb") as file:
        response = await stage.http.post(
            "/graphql",
            data={"operations": json.dumps(operations), "map": '{"0": ["variables.file"]}'},
            files={"0": (path.name, file, "application/dicom")},
            headers={"GraphQL-Preflight": "1"},
        )
    if response.json()["data"]["uploadDicom"]["storedCount"] != 1:
        raise RuntimeError(response.text)


async def _frame_urls(stage: Stage, center: int) -> list[str]:
    data = await stage.graphql(_URLS, {"center": center})
    (series,) = data["studies"]["nodes"][0]["series"]
    return [frame["url"] for frame in series["instances"][0]["frames"]]


async def _look_at(stage: Stage, urls: list[str]) -> None:
    async with open_lean_client(stage.url, {}, connections=_AT_ONCE) as client:
        await asyncio.gather(*(client.get(url) for url in urls))
