"""Turns that calls share come back, whatever becomes of the files that had them."""

import asyncio
import io
from typing import TYPE_CHECKING, cast

import pytest

from services.ingest.archives import ArchiveLimits
from services.ingest.service import Ingest, SentFile

if TYPE_CHECKING:
    from services.ingest.storing import FileStorage


async def test_a_call_that_is_cancelled_gives_the_turns_of_its_files_back() -> None:
    begun = 0

    class Storage:
        async def store(self, *_: object, **__: object) -> None:
            nonlocal begun
            begun += 1
            await asyncio.Event().wait()

    turns = asyncio.Semaphore(2)
    ingest = Ingest(
        cast("FileStorage", Storage()), limits=ArchiveLimits(), concurrency=2, turns=turns
    )
    storing = asyncio.create_task(ingest.store([SentFile("one", lambda: io.BytesIO(b"x"))]))
    while turns._value == 2:  # noqa: ASYNC110  # a thread opens the file
        await asyncio.sleep(0)
    # Its turn is taken and its task not begun.
    assert begun == 0
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    assert turns._value == 2
