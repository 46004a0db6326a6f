"""An upload that is cancelled while an archive is unpacked leaves no file open."""

import asyncio
import io
import tempfile
import zipfile
from typing import TYPE_CHECKING, BinaryIO, cast

import pytest

from services.ingest.archives import ArchiveLimits
from services.ingest.service import Ingest, SentFile

if TYPE_CHECKING:
    from services.ingest.storing import FileStorage


class _Storage:
    """Never done with any file."""

    async def store(self, *_: object, **__: object) -> None:
        await asyncio.Event().wait()


@pytest.fixture
def spools(monkeypatch: pytest.MonkeyPatch) -> list[BinaryIO]:
    made: list[BinaryIO] = []
    temporary = tempfile.TemporaryFile

    def recorded() -> BinaryIO:
        made.append(cast("BinaryIO", temporary()))
        return made[-1]

    monkeypatch.setattr(tempfile, "TemporaryFile", recorded)
    return made


def packed(members: int) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for number in range(members):
            archive.writestr(f"{number}.dcm", bytes(1_200_000))
    return file.getvalue()


@pytest.mark.parametrize("members_unpacked", [1, 3, 5])
async def test_members_of_a_cancelled_upload_are_closed(
    spools: list[BinaryIO], members_unpacked: int
) -> None:
    ingest = Ingest(cast("FileStorage", _Storage()), limits=ArchiveLimits(), concurrency=4)
    archive = io.BytesIO(packed(20))
    storing = asyncio.create_task(ingest.store([SentFile("all.zip", lambda: archive)]))
    while len(spools) < members_unpacked:  # noqa: ASYNC110  # a thread fills the list
        await asyncio.sleep(0)
    storing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await storing
    assert [spool.closed for spool in spools] == [True] * len(spools)
    assert archive.closed
