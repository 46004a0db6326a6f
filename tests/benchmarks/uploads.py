"""Uploads of 200 CT files of 0.5 MB beside posting them straight to Orthanc."""

import asyncio
import functools
import io
import json
import statistics
import zipfile
from collections.abc import Awaitable, Callable, Sequence

from tests.benchmarks.measurement import Row, seconds_of
from tests.benchmarks.stage import Stage, open_stage
from tests.benchmarks.studies import ct_files

_FILES = 200
_AT_ONCE = 4
_RUNS = 3

_Pack = Callable[[Sequence[bytes]], Sequence[bytes]]
_Way = Callable[[Stage, Sequence[bytes]], Awaitable[None]]

_UPLOAD = """mutation ($files: [Upload!]!) {
  uploadDicom(files: $files) { storedCount failedCount } }"""


async def run() -> list[Row]:
    """Measure single uploads, one request of all, and one ZIP."""
    ways: list[tuple[str, _Pack, _Way]] = [
        (f"{_FILES} uploads, {_AT_ONCE} at a time", list, lambda s, f: _each(f, _uploading(s))),
        (f"one request of {_FILES} files", list, _upload),
        (f"one ZIP of {_FILES} files", lambda files: [_zip_of(files)], _upload),
    ]
    return [await _row(case, pack, way) for case, pack, way in ways]


async def _row(case: str, pack: _Pack, way: _Way) -> Row:
    """Measure one way and its rival in turn, in one store; packing is its sender's."""
    async with open_stage() as stage:
        times: list[tuple[float, float]] = []
        for run_number in range(_RUNS + 1):
            theirs = list(ct_files(_FILES, patient_id=f"DIRECT{run_number}"))
            mine = pack(list(ct_files(_FILES, patient_id=f"OURS{run_number}")))
            direct = await seconds_of(functools.partial(_each, theirs, _posting(stage)))
            await stage.wait_for_instances(_FILES * (2 * run_number + 1))
            ours = await seconds_of(functools.partial(way, stage, mine))
            times.append((ours, direct))
    warm = times[1:]
    return Row(
        case=case,
        ours_seconds=statistics.median(ours for ours, _ in warm),
        rival=f"POST /instances, {_AT_ONCE} at a time",
        rival_seconds=statistics.median(direct for _, direct in warm),
        goal=0.85,
    )


async def _each(files: Sequence[bytes], send: Callable[[bytes], Awaitable[None]]) -> None:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(content: bytes) -> None:
        async with gate:
            await send(content)

    await asyncio.gather(*(one(content) for content in files))


def _posting(stage: Stage) -> Callable[[bytes], Awaitable[None]]:
    async def post(content: bytes) -> None:
        (await stage.orthanc.post("/instances", content=content)).raise_for_status()

    return post


def _uploading(stage: Stage) -> Callable[[bytes], Awaitable[None]]:
    return lambda content: _upload(stage, [content])


async def _upload(stage: Stage, files: Sequence[bytes]) -> None:
    operations = {"query": _UPLOAD, "variables": {"files": [None] * len(files)}}
    names = {str(index): [f"variables.files.{index}"] for index in range(len(files))}
    parts: list[tuple[str, tuple[str | None, bytes, str]]] = [
        ("operations", (None, json.dumps(operations).encode(), "application/json")),
        ("map", (None, json.dumps(names).encode(), "application/json")),
        *(
            (str(index), (f"{index}.dcm", content, "application/dicom"))
            for index, content in enumerate(files)
        ),
    ]
    response = await stage.http.post("/graphql", files=parts, headers={"GraphQL-Preflight": "1"})
    payload = response.json()["data"]["uploadDicom"]
    if payload["failedCount"]:
        raise RuntimeError(payload)


def _zip_of(files: Sequence[bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for index, content in enumerate(files):
            archive.writestr(f"{index}.dcm", content)
    return buffer.getvalue()
