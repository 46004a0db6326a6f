"""Frames that end their renderer, and an Orthanc that dies while it reads them."""

import asyncio
import io
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from pydantic import SecretStr
from pydicom import dcmread
from pydicom.encaps import encapsulate
from pydicom.uid import JPEG2000Lossless

from models import InstanceDocument
from services.embedded.orthanc import EmbeddedOrthanc, run_orthanc
from services.errors import (
    FrameQuarantined,
    OrthancOutcomeUnknown,
    OrthancUnavailable,
    RendererCrashed,
)
from services.frames.records import CrashRecords, find_following
from services.frames.renderer import RendererPool
from services.frames.variant import FrameVariant
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from tests.benchmarks.studies import ct_files
from tests.patience import PATIENCE_SECONDS
from tests.real.sync_stage import modality_client
from tests.real.test_frames_renderer import hold_idle_workers, until

FULL = FrameVariant(full_range=True)


@pytest.fixture
async def mortal(tmp_path: Path) -> AsyncIterator[EmbeddedOrthanc]:
    """An Orthanc of this test's own, which comes back after its death."""
    async with run_orthanc(tmp_path / "mortal") as running:
        yield running


@pytest.fixture
def settings_of_mortal(settings: Settings, mortal: EmbeddedOrthanc) -> Settings:
    return settings.model_copy(
        update={
            "orthanc_url": mortal.url,
            "orthanc_username": mortal.username,
            "orthanc_password": SecretStr(mortal.password),
        }
    )


async def stored_instances(runtime: Runtime, orthanc: EmbeddedOrthanc) -> list[InstanceDocument]:
    async with modality_client(orthanc) as http:
        for content in ct_files(3, size=64):
            (await http.post("/instances", content=content)).raise_for_status()
    assert runtime.sync is not None
    await runtime.sync.synchronize()
    return await InstanceDocument.find_all().sort("instanceNumber").to_list()


async def render_and_die(
    runtime: Runtime, instance: InstanceDocument, orthanc: EmbeddedOrthanc
) -> None:
    """Kill Orthanc after it was asked for a frame and before it answers."""
    pid = orthanc.child.pid
    os.kill(pid, signal.SIGSTOP)
    rendering = asyncio.create_task(runtime.frames.render(instance, 0, FULL))
    await asyncio.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(OrthancOutcomeUnknown):
        await rendering
    await until_back(runtime)


async def until_back(runtime: Runtime) -> None:
    assert runtime.orthanc is not None
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                await runtime.orthanc.system()
            except OrthancUnavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def lose_the_renderer_of(runtime: Runtime, instance: InstanceDocument, index: int) -> None:
    """Kill the renderer of a frame while it has it."""
    pool = renderers_of(runtime)
    await pool.start()
    await hold_idle_workers(pool)
    (held,) = pool.worker_pids
    rendering = asyncio.create_task(runtime.frames.render(instance, index, FULL))
    await until(lambda: not pool.worker_pids or rendering.done())
    os.kill(held, signal.SIGKILL)
    with pytest.raises(RendererCrashed):
        await rendering


def renderers_of(runtime: Runtime) -> RendererPool:
    assert runtime.frames._pipeline is not None
    return runtime.frames._pipeline._renderers


def jpeg_2000_cine(frames: int) -> bytes:
    values = np.random.default_rng(1).integers(0, 4095, (frames, 32, 32), dtype=np.uint16)
    encoded = [bytes(imagecodecs.jpeg2k_encode(one, level=0, codecformat="J2K")) for one in values]
    dataset = dcmread(io.BytesIO(next(ct_files(1, size=32, patient_id="J2K"))))
    dataset.file_meta.TransferSyntaxUID = JPEG2000Lossless
    dataset.NumberOfFrames, dataset.PixelRepresentation = frames, 0
    dataset.BitsStored, dataset.HighBit = 12, 11
    dataset.PixelData = encapsulate(encoded)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    written = io.BytesIO()
    dataset.save_as(written)
    return written.getvalue()


async def stored_cine(runtime: Runtime, orthanc: EmbeddedOrthanc) -> InstanceDocument:
    async with modality_client(orthanc) as http:
        (await http.post("/instances", content=jpeg_2000_cine(6))).raise_for_status()
    assert runtime.sync is not None
    await runtime.sync.synchronize()
    found = await InstanceDocument.find_one({"numberOfFrames": 6})
    assert found is not None
    return found


@pytest.fixture
def settings_of_one_renderer(settings: Settings) -> Settings:
    # No look-ahead: it would take the renderer that the test waits for.
    return settings.model_copy(update={"renderer_processes": 1, "frame_cache_bytes": 0})


async def test_a_frame_that_ends_its_renderer_twice_is_quarantined_over_restarts(
    settings_of_one_renderer: Settings, empty_orthanc: EmbeddedOrthanc
) -> None:
    async with open_runtime(settings_of_one_renderer) as runtime:
        deadly = await stored_cine(runtime, empty_orthanc)
        pid = empty_orthanc.child.pid
        for _ in range(2):
            await lose_the_renderer_of(runtime, deadly, 0)
        with pytest.raises(FrameQuarantined):
            await runtime.frames.render(deadly, 0, FULL)
        assert (await runtime.frames.render(deadly, 1, FULL)).content[:4] == b"\x89PNG"
        assert empty_orthanc.child.pid == pid
        frame = f"{deadly.id}/{deadly.revision}/0"
        assert await CrashRecords().load() == {frame: 2}
    async with open_runtime(settings_of_one_renderer) as restarted:
        with pytest.raises(FrameQuarantined):
            await restarted.frames.render(deadly, 0, FULL)


async def test_an_instance_of_which_three_frames_end_a_renderer_is_quarantined(
    settings_of_one_renderer: Settings, empty_orthanc: EmbeddedOrthanc
) -> None:
    async with open_runtime(settings_of_one_renderer) as runtime:
        deadly = await stored_cine(runtime, empty_orthanc)
        for index in range(3):
            await lose_the_renderer_of(runtime, deadly, index)
        with pytest.raises(FrameQuarantined, match="This instance"):
            await runtime.frames.render(deadly, 5, FULL)


async def test_a_frame_that_is_shown_after_a_crash_is_cleared(
    settings_of_one_renderer: Settings, empty_orthanc: EmbeddedOrthanc
) -> None:
    async with open_runtime(settings_of_one_renderer) as runtime:
        suspect = await stored_cine(runtime, empty_orthanc)
        await lose_the_renderer_of(runtime, suspect, 2)
        assert len(await CrashRecords().load()) == 1
        assert (await runtime.frames.render(suspect, 2, FULL)).content[:4] == b"\x89PNG"
        assert await CrashRecords().load() == {}


async def test_a_file_at_which_orthanc_dies_is_not_parsed_again(
    mortal: EmbeddedOrthanc, settings_of_mortal: Settings
) -> None:
    async with open_runtime(settings_of_mortal) as runtime:
        # Orthanc parses what it cuts a frame out of; a file of one frame it only sends.
        deadly = await stored_cine(runtime, mortal)
        await render_and_die(runtime, deadly, mortal)
        assert (await runtime.frames.render(deadly, 0, FULL)).content[:4] == b"\x89PNG"
        assert runtime.frames._pipeline is not None
        assert list(runtime.frames._pipeline._uncut) == [(deadly.id, deadly.revision)]
        assert await CrashRecords().load() == {}


async def test_the_breaker_refuses_frames_at_once_while_orthanc_is_away(
    mortal: EmbeddedOrthanc, settings_of_mortal: Settings
) -> None:
    async with open_runtime(settings_of_mortal) as runtime:
        # The first is read as a file: Orthanc died at its frame in a test above.
        instance, *_ = await stored_instances(runtime, mortal)
        os.kill(mortal.child.pid, signal.SIGKILL)
        details = []
        for _ in range(4):
            with pytest.raises(OrthancUnavailable) as refused:
                await runtime.frames.render(instance, 0, FULL)
            details.append(refused.value.detail)
        assert details[3] == "circuit breaker is open"
        await until_back(runtime)
        assert (await runtime.frames.render(instance, 0, FULL)).content[:4] == b"\x89PNG"


async def test_what_is_removed_or_indexed_anew_leaves_the_cache_at_once(
    mortal: EmbeddedOrthanc, settings_of_mortal: Settings
) -> None:
    async with open_runtime(settings_of_mortal) as runtime:
        first, second, third = await stored_instances(runtime, mortal)
        assert await find_following(first, 1) == [second]
        assert await find_following(first, 5) == [second, third]
        before = await runtime.frames.render(first, 0, FULL)
        kept = await runtime.frames.render(second, 0, FULL)
        assert await runtime.frames.render(first, 0, FULL) is before
        await runtime.indexer.remove([first.id])
        assert await runtime.frames.render(second, 0, FULL) is kept
        assert await runtime.frames.render(first, 0, FULL) is not before
