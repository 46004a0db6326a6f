import errno
import logging
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.frames.cache import FrameKey
from services.frames.disk_cache import DiskCache, open_disk_cache
from services.frames.pixels import RenderedFrame
from services.frames.rendering_version import rendering_version
from services.frames.sealed_folder import SealedFolder
from services.frames.signing import FrameUrlKeys
from services.frames.variant import FrameVariant
from tests.graph.routes.stage import INSTANCE_ID, IndexedInstance

INSTANCE = IndexedInstance()
KEY = FrameKey(INSTANCE_ID, "deadbeef", 0, FrameVariant())
FRAME = RenderedFrame.of(b"\x89PNG" * 100)


def folder_at(path: Path) -> SealedFolder:
    return SealedFolder(path, FrameUrlKeys((("k1", bytes(32)),)), max_bytes=1024 * 1024)


async def kept_and_found(
    path: Path, instance: IndexedInstance = INSTANCE, key: FrameKey = KEY
) -> RenderedFrame | None:
    """Keep a picture, restart, and look for another one."""
    async with open_disk_cache(folder_at(path)) as cache:
        cache.keep(INSTANCE, KEY, FRAME)
    async with open_disk_cache(folder_at(path)) as cache:
        return await cache.find(instance, key)


async def test_a_picture_is_there_after_a_restart(tmp_path: Path) -> None:
    assert await kept_and_found(tmp_path) == FRAME


@pytest.mark.parametrize(
    "key",
    [
        KEY._replace(instance_id="other"),
        KEY._replace(revision="00000000"),
        KEY._replace(frame_index=1),
        KEY._replace(variant=FrameVariant(full_range=True)),
    ],
)
async def test_another_picture_is_not(tmp_path: Path, key: FrameKey) -> None:
    instance = replace(INSTANCE, id=key.instance_id)
    assert await kept_and_found(tmp_path, instance, key) is None


@pytest.mark.parametrize(
    "instance",
    [
        replace(INSTANCE, window_width=400.0),
        replace(INSTANCE, rescale_slope=2.0),
        replace(INSTANCE, photometric_interpretation="MONOCHROME1"),
        replace(INSTANCE, has_complex_display=True),
    ],
)
async def test_a_picture_of_what_the_index_said_before_is_not_shown(
    tmp_path: Path, instance: IndexedInstance
) -> None:
    assert await kept_and_found(tmp_path, instance) is None


async def test_a_picture_that_another_version_made_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_disk_cache(folder_at(tmp_path)) as cache:
        cache.keep(INSTANCE, KEY, FRAME)
    monkeypatch.setattr("services.frames.disk_cache.rendering_version", lambda: "another")
    async with open_disk_cache(folder_at(tmp_path)) as cache:
        assert await cache.find(INSTANCE, KEY) is None


def test_another_library_makes_another_version(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = rendering_version.__wrapped__()
    assert rendering_version.__wrapped__() == ours
    monkeypatch.setattr("services.frames.rendering_version.cv2.__version__", "99")
    assert rendering_version.__wrapped__() != ours


async def test_discarding_also_takes_what_is_being_written(tmp_path: Path) -> None:
    async with open_disk_cache(folder_at(tmp_path)) as cache:
        for frame_index in range(20):
            cache.keep(INSTANCE, KEY._replace(frame_index=frame_index), FRAME)
        cache.discard([INSTANCE_ID])
        cache.keep(replace(INSTANCE, id="other"), KEY, FRAME)
    assert folder_at(tmp_path).owners() == {folder_at(tmp_path).hash_owner("other")}


async def test_what_nobody_owns_any_more_goes(tmp_path: Path) -> None:
    async def indexed() -> AsyncIterator[str]:
        yield "kept"
        yield "without pictures"

    async with open_disk_cache(folder_at(tmp_path)) as cache:
        for owner in ("kept", "deleted meanwhile"):
            cache.keep(replace(INSTANCE, id=owner), KEY, FRAME)
        await cache.discard_all_but(indexed())
    assert folder_at(tmp_path).owners() == {folder_at(tmp_path).hash_owner("kept")}


class Failing(SealedFolder):
    """A disk that is full, and counts how often it is asked."""

    asked = 0

    def write(self, owner: str, name: str, content: bytes) -> None:
        del owner, name, content
        self.asked += 1
        raise OSError(errno.ENOSPC, "No space left on device")

    def read(self, owner: str, name: str) -> bytes | None:
        del owner, name
        raise OSError(errno.EIO, "Input/output error")


@pytest.fixture
def failing(tmp_path: Path) -> Failing:
    return Failing(tmp_path, FrameUrlKeys((("k1", bytes(32)),)), max_bytes=1024 * 1024)


async def _ask_often(cache: DiskCache) -> list[RenderedFrame | None]:
    return [await cache.find(INSTANCE, KEY) for _ in range(5)]


async def test_a_full_disk_switches_it_off_with_one_line(
    failing: Failing, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        async with open_disk_cache(failing) as cache:
            for _ in range(3):
                cache.keep(INSTANCE, KEY, FRAME)
        async with open_disk_cache(failing) as cache:
            assert await _ask_often(cache) == [None] * 5
            cache.keep(INSTANCE, KEY, FRAME)
    assert [record.getMessage() for record in caplog.records] == [
        "frames are not kept on disk until the next start: No space left on device",
        "frames are not kept on disk until the next start: Input/output error",
    ]
    assert failing.asked == 3


async def test_what_a_slow_disk_cannot_take_is_not_kept(
    failing: Failing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.frames.disk_cache._WAITING_BYTES", 2 * len(FRAME.png))
    async with open_disk_cache(failing) as cache:
        for _ in range(10):
            cache.keep(INSTANCE, KEY, FRAME)
    assert failing.asked == 2
