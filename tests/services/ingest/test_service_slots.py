"""UploadPermits that calls share come back, whatever becomes of the files that had them."""

import asyncio
import gc
import io
import zipfile
from typing import TYPE_CHECKING, cast

import pytest

from services.ingest.archives import ArchiveLimits
from services.ingest.results import StoreResult, StoreStatus
from services.ingest.service import Ingest, SentFile
from tests.patience import PATIENCE_SECONDS

if TYPE_CHECKING:
    from services.ingest.storing import FileStorage

STORED = StoreResult(file_name="one", status=StoreStatus.STORED)


async def test_a_call_that_is_cancelled_gives_the_turns_of_its_files_back() -> None:
    begun = 0

    class Storage:
        async def store(self, *_: object, **__: object) -> None:
            nonlocal begun
            begun += 1
            await asyncio.Event().wait()

    permits = asyncio.Semaphore(2)
    ingest = Ingest(
        cast("FileStorage", Storage()), limits=ArchiveLimits(), concurrency=2, permits=permits
    )
    storing = asyncio.create_task(ingest.store([SentFile("one", lambda: io.BytesIO(b"x"))]))
    while permits._value == 2:  # noqa: ASYNC110  # a thread opens the file
        await asyncio.sleep(0)
    # Its turn is taken and its task not begun.
    assert begun == 0
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    assert permits._value == 2


async def test_one_caller_takes_half_of_the_threads_however_many_calls_they_make() -> None:
    busy: list[str] = []
    enough = asyncio.Event()

    class Storage:
        async def store(self, name: str, *_: object, **__: object) -> None:
            busy.append(name)
            if name == "theirs":
                enough.set()
            await asyncio.Event().wait()

    ingest = Ingest(
        cast("FileStorage", Storage()),
        limits=ArchiveLimits(),
        concurrency=2,
        caller_concurrency=3,
    )
    calls = [
        asyncio.create_task(
            ingest.store([SentFile("mine", lambda: io.BytesIO(b"x"))] * 4, caller="greedy")
        )
        for _ in range(4)
    ]
    while busy.count("mine") < 3:  # noqa: ASYNC110  # threads open the files
        await asyncio.sleep(0)
    other = SentFile("theirs", lambda: io.BytesIO(b"x"))
    calls.append(asyncio.create_task(ingest.store([other], caller="other")))
    await asyncio.wait_for(enough.wait(), PATIENCE_SECONDS)
    assert busy.count("mine") == 3
    for call in calls:
        call.cancel()
    await asyncio.gather(*calls, return_exceptions=True)


@pytest.mark.no_cover
async def test_a_caller_who_is_done_leaves_nothing_behind() -> None:
    class Storage:
        async def store(self, *_: object, **__: object) -> StoreResult:
            return STORED

    ingest = Ingest(
        cast("FileStorage", Storage()),
        limits=ArchiveLimits(),
        concurrency=2,
        caller_concurrency=3,
    )
    await ingest.store([SentFile("one", lambda: io.BytesIO(b"x"))], caller="somebody")
    gc.collect()
    assert not ingest._callers


async def test_the_archives_of_one_call_share_the_limit_of_members() -> None:
    class Storage:
        async def store(self, *_: object, **__: object) -> StoreResult:
            return STORED

    def archive() -> io.BytesIO:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as written:
            for number in range(3):
                written.writestr(f"{number}", b"x" * 200)
        return packed

    ingest = Ingest(
        cast("FileStorage", Storage()), limits=ArchiveLimits(max_members=4), concurrency=2
    )
    results = await ingest.store([SentFile(f"{number}.zip", archive) for number in range(3)])
    errors = [getattr(one, "error", None) for one in results]
    codes = [error and error.code for error in errors]
    assert codes == [None, None, None, "ARCHIVE_TOO_LARGE", "ARCHIVE_TOO_LARGE"]
