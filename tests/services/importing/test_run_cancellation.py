"""Whoever leaves an import waits for its threads before the journal and the files are closed."""

import asyncio
import threading
from collections.abc import Iterable, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import BinaryIO, cast
from unittest.mock import MagicMock

import pytest

from services.dicom.layout import WalkLimits
from services.importing import run
from services.importing.folders import FoundFile
from services.importing.journal import Journal
from services.importing.run import ImportRun
from services.ingest.results import StoreResult, StoreStatus
from services.ingest.service import Ingest, SentFile
from services.orthanc.identifiers import orthanc_ids
from tests.blocked_work import BlockedWork


class _Ingest:
    """Stores everything at once."""

    def with_shared_permits(self, _concurrency: int) -> "_Ingest":
        return self

    async def store(self, files: list[SentFile]) -> list[StoreResult]:
        ids = orthanc_ids("P", "1", "2", files[0].name)
        return [StoreResult(file_name=files[0].name, status=StoreStatus.STORED, ids=ids)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "disk"
    root.mkdir()
    for name in ("1.dcm", "2.dcm"):
        (root / name).write_bytes(b"content")
    return root


@pytest.fixture
def blocked() -> BlockedWork:
    return BlockedWork()


async def test_a_cancelled_import_waits_for_the_check_of_its_files(
    folder: Path, tmp_path: Path, blocked: BlockedWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "check_file", blocked)
    importing = asyncio.create_task(_import(folder, tmp_path, is_dry=True))
    await blocked.assert_waited_for(importing)


async def test_a_cancelled_import_waits_for_the_write_of_its_journal(
    folder: Path, tmp_path: Path, blocked: BlockedWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = Journal.record
    recorded: list[int] = []

    def record_late(journal: Journal, sent: Iterable[tuple[FoundFile, Sequence[str]]]) -> None:
        rows = list(sent)
        if threading.current_thread() is not threading.main_thread():
            blocked()
        record(journal, rows)
        recorded.append(len(rows))

    monkeypatch.setattr(Journal, "record", record_late)
    monkeypatch.setattr(run, "_RECORDED_AT_ONCE", 1)
    importing = asyncio.create_task(_import(folder, tmp_path))
    await blocked.assert_waited_for(importing)
    # The thread, then what was left: one after the other, and both before the journal is closed.
    assert recorded[0] == 1


async def test_an_import_whose_report_fails_waits_for_the_check_of_its_files(
    folder: Path, tmp_path: Path, blocked: BlockedWork, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(file: BinaryIO, **_: object) -> None:
        if Path(file.name).name == "2.dcm":
            blocked()

    monkeypatch.setattr(run, "check_file", check)
    importing = asyncio.create_task(_import(folder, tmp_path, is_dry=True, fails=blocked.began))
    await asyncio.to_thread(blocked.began.wait)
    for _ in range(10):
        await asyncio.sleep(0)
    assert not importing.done()
    blocked.may_end.set()
    with pytest.raises(OSError, match="full"):
        await importing
    assert blocked.has_ended


async def _import(
    folder: Path, tmp_path: Path, *, is_dry: bool = False, fails: threading.Event | None = None
) -> None:
    with Journal(tmp_path / "journal.sqlite3") as journal:
        importing = ImportRun(
            cast("Ingest", _Ingest()),
            MagicMock(),
            journal,
            concurrency=4,
            limits=WalkLimits(),
        )
        async with aclosing(importing.outcomes([folder], is_dry=is_dry)) as outcomes:
            async for _ in outcomes:
                if fails is not None:
                    await asyncio.to_thread(fails.wait)
                    raise OSError("full")
