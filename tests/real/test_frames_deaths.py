"""Frames that stop Orthanc, on a real Orthanc that is killed while it renders."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from pydantic import SecretStr

from models import InstanceDocument
from services.embedded.orthanc import EmbeddedOrthanc, run_orthanc
from services.errors import FrameQuarantined, OrthancOutcomeUnknown, OrthancUnavailable
from services.frames.records import StoredDeathRecords, find_following
from services.frames.variant import FrameVariant
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from tests.benchmarks.studies import ct_files

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
    async with httpx.AsyncClient(
        base_url=orthanc.url, auth=(orthanc.username, orthanc.password)
    ) as http:
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
    async with asyncio.timeout(20):
        while True:
            try:
                await runtime.orthanc.system()
            except OrthancUnavailable:
                await asyncio.sleep(0.05)
            else:
                return


async def test_a_frame_that_stops_orthanc_twice_is_quarantined_over_restarts(
    mortal: EmbeddedOrthanc, settings_of_mortal: Settings
) -> None:
    async with open_runtime(settings_of_mortal) as runtime:
        deadly, harmless, _ = await stored_instances(runtime, mortal)
        await render_and_die(runtime, deadly, mortal)
        await render_and_die(runtime, deadly, mortal)
        assert await runtime.database["suspectFrames"].count_documents({}) == 1
        pid = mortal.child.pid
        with pytest.raises(FrameQuarantined):
            await runtime.frames.render(deadly, 0, FULL)
        assert (await runtime.frames.render(harmless, 0, FULL)).content[:4] == b"\x89PNG"
        assert mortal.child.pid == pid
        frame = f"{deadly.id}/{deadly.revision}/0"
        assert await StoredDeathRecords().load() == {frame: 2}
    async with open_runtime(settings_of_mortal) as restarted:
        with pytest.raises(FrameQuarantined):
            await restarted.frames.render(deadly, 0, FULL)
        await restarted.database.client.drop_database(settings_of_mortal.mongodb_database)


async def test_a_frame_that_is_shown_after_a_death_is_cleared(
    mortal: EmbeddedOrthanc, settings_of_mortal: Settings
) -> None:
    async with open_runtime(settings_of_mortal) as runtime:
        suspect, *_ = await stored_instances(runtime, mortal)
        await render_and_die(runtime, suspect, mortal)
        assert len(await StoredDeathRecords().load()) == 1
        assert (await runtime.frames.render(suspect, 0, FULL)).content[:4] == b"\x89PNG"
        assert await StoredDeathRecords().load() == {}
        await runtime.database.client.drop_database(settings_of_mortal.mongodb_database)


async def test_the_breaker_refuses_frames_at_once_while_orthanc_is_away(
    mortal: EmbeddedOrthanc, settings_of_mortal: Settings
) -> None:
    async with open_runtime(settings_of_mortal) as runtime:
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
        await runtime.database.client.drop_database(settings_of_mortal.mongodb_database)


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
        await runtime.database.client.drop_database(settings_of_mortal.mongodb_database)
