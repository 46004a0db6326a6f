"""What the server holds in memory of uploads that arrive side by side."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.settings import Settings
from tests.real.hostile_files import forget_peak, peak_bytes
from tests.real.large_files import large_upload
from tests.real.shell import Served, Shell, served
from tests.real.sync_stage import modality_client

_MIB = 1024 * 1024
_OPERATIONS = json.dumps(
    {
        "query": "mutation ($files: [Upload!]!) { uploadDicom(files: $files) "
        "{ results { status frameCount error { code message } } } }",
        "variables": {"files": [None]},
    }
)


_FRAMES_OF_A_GIB = 2048
_FULL = "UPLOADS_OF_1_GIB"
"""Set, the long test runs: it needs 45 GB of disk and some ten minutes."""


async def send(http: httpx.AsyncClient, frames: int) -> Any:  # noqa: ANN401  # JSON
    upload = large_upload(_OPERATIONS, frames=frames)
    answer = await http.post("/graphql", content=upload.body(), headers=upload.headers)
    return answer.json()


@pytest.fixture
async def server(settings: Settings, tmp_path: Path) -> AsyncIterator[Served]:
    """A server in a process of its own; what it stored is deleted from Orthanc's disk."""
    async with served(Shell.on_stores_of(settings, tmp_path)) as running:
        yield running
    async with modality_client(settings) as orthanc:
        for patient in (await orthanc.get("/patients")).json():
            (await orthanc.delete(f"/patients/{patient}")).raise_for_status()


async def peaks(server: Served, *, streams: int, frames: int) -> tuple[int, int]:
    """Send files side by side; answers the peak of one small file and the peak of all, in bytes."""
    pid = server.process.pid
    async with httpx.AsyncClient(base_url=server.url, timeout=None, trust_env=False) as http:  # noqa: S113  # as long as it takes
        await send(http, 1)
        before = await asyncio.to_thread(peak_bytes, pid)
        await asyncio.to_thread(forget_peak, pid)
        answers = await asyncio.gather(*(send(http, frames) for _ in range(streams)))
    stored = {"status": "STORED", "frameCount": frames, "error": None}
    expected = {"data": {"uploadDicom": {"results": [stored]}}}
    assert answers == [expected] * streams
    return before, await asyncio.to_thread(peak_bytes, pid)


async def test_parallel_uploads_grow_the_server_by_a_fraction_of_their_size(server: Served) -> None:
    streams = 6
    before, peak = await peaks(server, streams=streams, frames=96)
    # Each file has 48 MiB; what is collected of it before it is written to the disk has one.
    assert (peak - before) / streams < 8 * _MIB


@pytest.mark.skipif(_FULL not in os.environ, reason=f"{_FULL} is not set")
async def test_twenty_parallel_uploads_of_a_gib_stay_under_512_mib(server: Served) -> None:
    before, peak = await peaks(server, streams=20, frames=_FRAMES_OF_A_GIB)
    print(f"{before / _MIB:.0f} MiB before, {peak / _MIB:.0f} MiB at most")  # noqa: T201  # the figure
    assert peak < 512 * _MIB
