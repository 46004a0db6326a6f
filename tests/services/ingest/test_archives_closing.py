"""Members that were unpacked to the disk are closed in threads: the disk takes its time."""

import asyncio
import io
import tempfile
import threading
import zipfile
from typing import TYPE_CHECKING, Any, cast

import pytest

from services.ingest.archives import ArchiveLimits
from services.ingest.results import StoreResult, StoreStatus
from services.ingest.service import Ingest, SentFile

if TYPE_CHECKING:
    from services.ingest.storing import FileStorage

SMALL = 300_000
LARGE = 2 * 1024 * 1024


class OnDisk(io.BytesIO):
    """Stands for a file; notes its size and whether the thread of the event loop closes it."""

    closed_by_loop: list[tuple[int, bool]]

    def close(self) -> None:
        if not self.closed:
            is_loop = threading.current_thread() is threading.main_thread()
            self.closed_by_loop.append((self.seek(0, io.SEEK_END), is_loop))
        super().close()


@pytest.fixture
def closed_by_loop(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, bool]]:
    closed: list[tuple[int, bool]] = []
    monkeypatch.setattr(OnDisk, "closed_by_loop", closed, raising=False)
    monkeypatch.setattr(tempfile, "TemporaryFile", OnDisk)
    return closed


class Storage:
    """Takes some files and is never done with the next one."""

    def __init__(self, taken: int) -> None:
        self._left = taken
        self.is_full = asyncio.Event()

    async def store(self, name: str, *_: Any, **__: Any) -> StoreResult:
        self._left -= 1
        if self._left < 0:
            self.is_full.set()
            await asyncio.Event().wait()
        return StoreResult(file_name=name, status=StoreStatus.STORED)


def archive(*sizes: int) -> SentFile:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as packed:
        for number, size in enumerate(sizes):
            packed.writestr(f"{number}.dcm", bytes(size))
    return SentFile("all.zip", lambda: file)


async def test_large_members_are_closed_in_threads(
    closed_by_loop: list[tuple[int, bool]],
) -> None:
    permits = asyncio.Semaphore(2)
    storage = cast("FileStorage", Storage(taken=4))
    ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=2, permits=permits)
    results = await ingest.store([archive(SMALL, LARGE, SMALL, LARGE)])
    assert [result.status for result in results] == ["STORED"] * 4
    # The small ones are memory.
    assert closed_by_loop == [(LARGE, False)] * 2
    assert permits._value == 2


async def test_large_members_of_a_cancelled_upload_are_closed_in_threads(
    closed_by_loop: list[tuple[int, bool]],
) -> None:
    permits = asyncio.Semaphore(2)
    storage = Storage(taken=1)
    ingest = Ingest(
        cast("FileStorage", storage), limits=ArchiveLimits(), concurrency=2, permits=permits
    )
    storing = asyncio.create_task(ingest.store([archive(*[LARGE] * 8)]))
    await storage.is_full.wait()
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    assert len(closed_by_loop) >= 2
    assert set(closed_by_loop) == {(LARGE, False)}
    assert permits._value == 2
