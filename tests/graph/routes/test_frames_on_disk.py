"""Frames that a restart leaves warm, asked for by their URLs."""

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import numpy as np
import pytest
import respx

from services.frames.sealed_folder import SealedFolder
from services.frames.signing import FrameUrlKeys
from tests.graph.routes.stage import (
    INSTANCE_ID,
    NUMPY_PATH,
    ORTHANC_URL,
    IndexedInstance,
    Stage,
    npy,
    open_stage,
)
from tests.graph.routes.test_frames import PIXELS, url

FIRST_TWO = IndexedInstance(number_of_frames=2)


@pytest.fixture
def orthanc() -> Iterator[respx.MockRouter]:
    with respx.MockRouter(base_url=ORTHANC_URL, assert_all_called=False) as router:
        yield router


@pytest.fixture
def folder(tmp_path: Path) -> SealedFolder:
    return SealedFolder(tmp_path, FrameUrlKeys((("k1", bytes(32)),)), max_bytes=1024 * 1024)


async def frame_before_the_restart(
    folder: SealedFolder, orthanc: respx.MockRouter, instance: IndexedInstance
) -> httpx.Response:
    orthanc.get(url__regex=r".*/numpy.*").respond(content=npy(PIXELS))
    async with open_stage(instance, folder=folder) as stage:
        answer = await stage.http.get(url(stage))
    orthanc.clear()
    orthanc.reset()
    orthanc.get(url__regex=r".*/numpy.*").mock(side_effect=httpx.ConnectError("away"))
    return answer


async def test_a_frame_after_a_restart_is_the_same_and_asks_no_orthanc(
    folder: SealedFolder, orthanc: respx.MockRouter
) -> None:
    before = await frame_before_the_restart(folder, orthanc, IndexedInstance())
    async with open_stage(IndexedInstance(), folder=folder) as stage:
        after = await stage.http.get(url(stage))
        again = await stage.http.get(url(stage))
    assert before.status_code == after.status_code == 200
    assert before.content == after.content == again.content
    assert before.headers["etag"] == after.headers["etag"]
    assert (orthanc.calls.call_count, stage.lookups) == (0, [INSTANCE_ID])


@pytest.mark.parametrize(
    ("instance", "status"),
    [(None, 404), (IndexedInstance(use_orthanc_preview=False), 415)],
    ids=["deleted", "switched off"],
)
async def test_a_frame_on_disk_that_is_not_to_be_shown_is_not_shown(
    folder: SealedFolder,
    orthanc: respx.MockRouter,
    instance: IndexedInstance | None,
    status: int,
) -> None:
    await frame_before_the_restart(folder, orthanc, IndexedInstance())
    async with open_stage(instance, folder=folder) as stage:
        assert (await stage.http.get(url(stage))).status_code == status


async def test_what_was_deleted_while_nobody_ran_goes_at_the_next_start(
    folder: SealedFolder, orthanc: respx.MockRouter
) -> None:
    await frame_before_the_restart(folder, orthanc, IndexedInstance())
    assert folder.owners() == {folder.hash_owner(INSTANCE_ID)}
    async with open_stage(folder=folder):
        await _until_empty(folder)


async def test_what_is_deleted_goes_with_all_its_frames(
    folder: SealedFolder, orthanc: respx.MockRouter
) -> None:
    orthanc.get(url__regex=r".*/numpy.*").respond(content=npy(PIXELS))
    async with open_stage(FIRST_TWO, folder=folder) as stage:
        for frame_index in range(2):
            assert (await stage.http.get(url(stage, frame_index))).status_code == 200
        stage.frames.discard([INSTANCE_ID])
    assert folder.owners() == set()


async def test_what_is_deleted_while_it_is_rendered_is_not_kept(
    folder: SealedFolder, orthanc: respx.MockRouter
) -> None:
    async with open_stage(IndexedInstance(), folder=folder) as stage:

        def delete_meanwhile(_: httpx.Request) -> httpx.Response:
            loop.call_soon_threadsafe(stage.frames.discard, [INSTANCE_ID])
            return httpx.Response(200, content=npy(PIXELS))

        loop = asyncio.get_running_loop()
        orthanc.get(NUMPY_PATH).mock(side_effect=delete_meanwhile)
        assert (await stage.http.get(url(stage))).status_code == 200
    assert folder.owners() == set()


class Deaths:
    """Death records in memory."""

    def __init__(self) -> None:
        self._deaths: dict[str, int] = {}

    async def load(self) -> Mapping[str, int]:
        return self._deaths

    async def add(self, frame: str) -> int:
        self._deaths[frame] = self._deaths.get(frame, 0) + 1
        return self._deaths[frame]

    async def remove(self, frame: str) -> None:
        self._deaths.pop(frame, None)


async def test_what_is_quarantined_leaves_no_picture_behind(
    folder: SealedFolder, orthanc: respx.MockRouter
) -> None:
    await frame_before_the_restart(folder, orthanc, FIRST_TWO)
    orthanc.clear()
    orthanc.get(url__regex=r".*/numpy.*").mock(side_effect=httpx.ReadError("died"))
    orthanc.get("/system").mock(side_effect=httpx.ConnectError("dead"))
    async with open_stage(FIRST_TWO, folder=folder, records=Deaths()) as stage:
        assert (await _status(stage, 0), await _status(stage, 1)) == (200, 503)
        assert folder.owners() == {folder.hash_owner(INSTANCE_ID)}
        assert (await _status(stage, 1), await _status(stage, 1)) == (503, 422)
        await _until_empty(folder)


async def _status(stage: Stage, frame_index: int) -> int:
    return (await stage.http.get(url(stage, frame_index))).status_code


async def _until_empty(folder: SealedFolder) -> None:
    async with asyncio.timeout(5):
        while folder.owners():  # noqa: ASYNC110  # files give no notice
            await asyncio.sleep(0.01)


async def test_a_disk_that_fails_costs_no_picture(
    folder: SealedFolder, orthanc: respx.MockRouter, tmp_path: Path
) -> None:
    orthanc.get(url__regex=r".*/numpy.*").respond(content=npy(np.ones((2, 3, 1), np.uint16)))
    (tmp_path / "frames").rename(tmp_path / "gone")
    (tmp_path / "frames").write_text("no folder")
    async with open_stage(FIRST_TWO, folder=folder) as stage:
        assert (await _status(stage, 0), await _status(stage, 1)) == (200, 200)
