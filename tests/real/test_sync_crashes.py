"""Killed at any point, both stores hold the same afterwards, and nothing acknowledged is lost.

CRASH_REPEATS sets how often each point is tried: 1 unless it is set.
"""

import asyncio
import json
import os
import signal
import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.dicom.layout import WalkLimits
from services.embedded.mongod import EmbeddedMongod, run_mongod
from services.embedded.orthanc import EmbeddedOrthanc, run_orthanc
from services.ingest.archives import ArchiveLimits
from services.ingest.results import StoreStatus
from services.ingest.service import Ingest, SentFile
from services.ingest.storing import FileStorage
from tests.real.sync_stage import Stage, eventually, instance_bytes, open_stage, running

REPEATS = range(int(os.environ.get("CRASH_REPEATS", "1")))
FILES = 6
_PATIENCE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Stores:
    """Both stores, empty."""

    mongodb: EmbeddedMongod
    orthanc: EmbeddedOrthanc


@pytest.fixture
def stores(mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc) -> Stores:
    return Stores(mongodb, empty_orthanc)


@pytest.mark.parametrize("repeat", REPEATS)
@pytest.mark.parametrize("packing", ["files", "zip"])
@pytest.mark.parametrize("point", ["push", "index", "roll-up"])
async def test_an_upload_killed_at_any_point_leaves_both_stores_the_same(
    stores: Stores, tmp_path: Path, point: str, packing: str, repeat: int
) -> None:
    files = _written(tmp_path, packing)
    # Two batches at least are sure.
    passes = 1 + repeat % 4 if point == "push" else repeat % 2
    async with open_stage(stores.mongodb, stores.orthanc) as stage, running(stage.sync):
        code, answers = await _process(stage, stores, (point, passes), files)
        assert code == -signal.SIGKILL
        await eventually(stage.is_in_step)
        assert _acknowledged(answers) <= await stage.instance_ids()
        # Sent again, everything is there once.
        await _process(stage, stores, (point, 10**6), files)
        await eventually(stage.is_in_step)
        assert (await stage.counts())["series"] == [(FILES, FILES)]


@pytest.mark.parametrize("repeat", REPEATS)
@pytest.mark.parametrize("point", ["index", "roll-up", "cursor"])
async def test_a_follower_killed_within_a_page_is_replaced_and_nothing_is_missed(
    stores: Stores, point: str, repeat: int
) -> None:
    async with open_stage(stores.mongodb, stores.orthanc) as stage:
        # The cursor's first move is the one at the start, before anything arrives.
        passes = 1 if point == "cursor" else repeat % 2
        following = asyncio.create_task(_process(stage, stores, (point, passes), []))
        await eventually(lambda: _has_cursor(stage))
        files = [instance_bytes(1, 1 + n % 3, n) for n in range(30)]
        await stage.send(files[:10])
        # The second wave is a page of its own: what is passed once is reached once more.
        await eventually(lambda: _is_over_or_indexed(following, stage))
        await stage.send(files[10:])
        code, _ = await following
        assert code == -signal.SIGKILL
        async with running(stage.sync):
            await eventually(stage.is_in_step)
        assert (await stage.counts())["studies"] == [(3, 30, 30)]


@pytest.mark.parametrize("repeat", REPEATS)
async def test_orthanc_killed_during_an_upload_loses_nothing_acknowledged(
    mongodb: EmbeddedMongod, tmp_path: Path, repeat: int
) -> None:
    files = [SentFile.from_path(path) for path in _written(tmp_path, "files", number=40)]
    async with (
        run_orthanc(tmp_path / "orthanc") as orthanc,
        open_stage(mongodb, orthanc) as stage,
        running(stage.sync),
    ):
        storage = FileStorage(stage.orthanc, stage.files, stage.indexer.index, WalkLimits())
        ingest = Ingest(storage, limits=ArchiveLimits(), concurrency=4)
        results = []
        async for result in ingest.results(files):
            results.append(result)
            if len(results) == 5 + repeat:
                os.kill(orthanc.child.pid, signal.SIGKILL)
        acknowledged = {
            result.instance_id for result in results if result.status is StoreStatus.STORED
        }
        await eventually(stage.is_in_step)
        assert acknowledged <= await stage.instance_ids()
        failed = [result for result in results if result.status is StoreStatus.FAILED]
        assert len(acknowledged) + len(failed) == len(files)


async def test_mongodb_stopped_for_a_while_is_caught_up_with(
    empty_orthanc: EmbeddedOrthanc, tmp_path: Path
) -> None:
    async with (
        run_mongod(tmp_path / "mongodb") as mongod,
        open_stage(mongod, empty_orthanc) as stage,
        running(stage.sync),
    ):
        await stage.send([instance_bytes(1, 1, 1)])
        await eventually(stage.is_in_step)
        os.kill(mongod.child.pid, signal.SIGSTOP)
        try:
            await stage.send([instance_bytes(1, 1, number) for number in range(2, 20)])
            await asyncio.sleep(10 if len(REPEATS) > 1 else 3)
        finally:
            os.kill(mongod.child.pid, signal.SIGCONT)
        await eventually(stage.is_in_step)
        assert (await stage.counts())["studies"] == [(1, 19, 19)]


def _written(folder: Path, packing: str, number: int = FILES) -> list[Path]:
    paths = [folder / f"{n}.dcm" for n in range(number)]
    for n, path in enumerate(paths):
        path.write_bytes(instance_bytes(1, 1, n))
    if packing == "files":
        return paths
    archives = [folder / "first.zip", folder / "second.zip"]
    for archive_path, members in zip(archives, (paths[::2], paths[1::2]), strict=True):
        with zipfile.ZipFile(archive_path, "w") as archive:
            for path in members:
                archive.write(path, path.name)
    return archives


async def _process(
    stage: Stage, stores: Stores, death: tuple[str, int], files: list[Path]
) -> tuple[int | None, str]:
    addresses = {
        "mongodb": stores.mongodb.url,
        "database": stage.database_name,
        "orthanc": stores.orthanc.url,
        "username": stores.orthanc.username,
        "password": stores.orthanc.password,
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.real.crashing_process",
        death[0],
        str(death[1]),
        json.dumps(addresses),
        *map(str, files),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        raise
    return process.returncode, output.decode()


def _acknowledged(answers: str) -> set[str]:
    lines = [line.split() for line in answers.splitlines()]
    return {instance_id for status, instance_id in lines if status == StoreStatus.STORED}


async def _has_cursor(stage: Stage) -> bool:
    return await stage.database["feedCursors"].find_one({}) is not None


async def _is_over_or_indexed(process: asyncio.Task[tuple[int | None, str]], stage: Stage) -> bool:
    return process.done() or len(await stage.instance_ids()) == 10
