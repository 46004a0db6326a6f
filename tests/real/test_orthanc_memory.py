"""The embedded Orthanc runs under a memory limit: a small file can't take the machine's memory."""

import asyncio
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from services.embedded.mongod import run_mongod
from services.embedded.orthanc import DEFAULT_MEMORY_BYTES, EmbeddedOrthanc, run_orthanc
from tests.patience import PATIENCE_SECONDS
from tests.real.hostile_files import content, peak_bytes, with_damaged_image
from tests.real.sync_stage import modality_client

_GREEDY = 42
"""Seed of a JPEG 2000 file of 6 kB without PhotometricInterpretation: GDCM asks for 14 to 22 GB."""

_LIMIT_BYTES = 2 * 1024**3
_ROUTES = ("preview", "rendered", "numpy?rescale=false", "raw")


@pytest.fixture
async def limited(tmp_path: Path) -> AsyncIterator[EmbeddedOrthanc]:
    async with run_orthanc(tmp_path / "limited", memory_bytes=_LIMIT_BYTES) as running:
        yield running


async def answers(http: httpx.AsyncClient) -> None:
    """Wait until Orthanc answers; its restart takes about a second."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                (await http.get("/system")).raise_for_status()
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_file_that_asks_for_gigabytes_is_refused_them_and_orthanc_goes_on(
    limited: EmbeddedOrthanc,
) -> None:
    async with modality_client(limited) as http:
        stored = await http.post("/instances", content=with_damaged_image(_GREEDY))
        instance_id = stored.raise_for_status().json()["ID"]
        peak = 0
        for route in _ROUTES:
            pid = limited.child.pid
            asking = asyncio.create_task(http.get(f"/instances/{instance_id}/frames/0/{route}"))
            while not asking.done():
                peak = max(peak, peak_bytes(pid))
                await asyncio.wait([asking], timeout=0.01)
            try:
                assert asking.result().is_error
            except httpx.TransportError:
                # It ended: the restart is the cure.
                await answers(http)
            peak = max(peak, peak_bytes(pid))
        assert 0 < peak < _LIMIT_BYTES
        after = await http.post("/instances", content=content("CT_small.dcm"))
        frame = await http.get(f"/instances/{after.json()['ID']}/frames/0/preview")
        assert frame.status_code == 200


async def test_each_child_has_its_limit_also_after_a_restart(tmp_path: Path) -> None:
    restarted = asyncio.Event()

    async with (
        run_orthanc(tmp_path / "orthanc", on_restart=lambda _: restarted.set()) as orthanc,
        run_mongod(tmp_path / "mongodb") as mongod,
    ):
        assert limit_of(orthanc.child.pid) == DEFAULT_MEMORY_BYTES
        assert 0 < limit_of(mongod.child.pid) < 8 * 1024**3
        orthanc.child._process.kill()
        async with asyncio.timeout(PATIENCE_SECONDS):
            await restarted.wait()
        assert limit_of(orthanc.child.pid) == DEFAULT_MEMORY_BYTES


def limit_of(pid: int) -> int:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_AS)
    assert soft == hard
    return soft
