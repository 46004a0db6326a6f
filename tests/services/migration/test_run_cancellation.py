"""Whoever leaves a migration waits for the threads that read its files."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest

from services.dicom.layout import WalkLimits
from services.ingest.results import StoreResult, StoreStatus
from services.ingest.service import Ingest, SentFile
from services.migration import run
from services.migration.local_files import LocalFile
from services.migration.path_map import PathMap
from services.migration.run import MigrationRun
from services.orthanc.identifiers import orthanc_ids
from tests.blocked_work import BlockedWork

if TYPE_CHECKING:
    from services.migration.source import LegacyInstances
    from services.orthanc.client import OrthancClient


class _Source:
    def __init__(self, path: Path) -> None:
        self._file = LocalFile(str(path), frozenset(), ["r1"])

    async def files(self) -> AsyncIterator[LocalFile]:
        yield self._file


class _Ingest:
    def with_shared_permits(self, _concurrency: int) -> "_Ingest":
        return self

    async def store(self, files: list[SentFile]) -> list[StoreResult]:
        ids = orthanc_ids("P", "1", "2", "3")
        return [StoreResult(file_name=files[0].name, status=StoreStatus.STORED, ids=ids)]


class _Orthanc:
    async def dicom_md5(self, _instance_id: str) -> str:
        return "0" * 32


@pytest.mark.parametrize("work", ["check_file", "walk"])
async def test_a_cancelled_migration_waits_for_the_thread_that_reads_a_file(
    tmp_path: Path, work: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`walk` is the first step of the comparison of what Orthanc holds with the file."""
    path = tmp_path / "1.dcm"
    path.write_bytes(b"content")
    blocked = BlockedWork()
    monkeypatch.setattr(run, work, blocked)
    if work == "walk":
        monkeypatch.setattr(MigrationRun, "_check", lambda *_: 7)
    migrating = asyncio.create_task(_migrate(path))
    await blocked.assert_waited_for(migrating)


async def _migrate(path: Path) -> None:
    migration = MigrationRun(
        cast("LegacyInstances", _Source(path)),
        cast("Ingest", _Ingest()),
        cast("OrthancClient", _Orthanc()),
        orthanc_url="http://127.0.0.1",
        path_map=PathMap(),
        concurrency=4,
        limits=WalkLimits(),
    )
    async with aclosing(migration.outcomes()) as outcomes:
        async for _ in outcomes:
            pass
