"""The drill: a backup while files arrive, restored elsewhere, with everything that was in it."""

import asyncio
import io
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, BinaryIO

import pydicom
import pytest

from graph.commands import backup as command
from graph.commands import restore
from graph.relay import require_node_id
from models import JobState
from services.anonymization.modification import ModificationOptions
from services.auth.scope import ALL
from services.backup.catalogue import (
    INDEX,
    MONGODB,
    STORAGE,
    BackupFailed,
    list_backups,
    require_backup,
)
from services.backup.creation import create_backup
from services.backup.service import BackupFolder, embedded_data
from services.backup.verification import verify_backup
from services.ingest.results import StoreResult
from services.ingest.service import SentFile
from services.jobs.handler import RunningJob
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from services.study_files import StudyFiles
from tests.real.jobs_stage import ADMIN, ended
from tests.real.sync_stage import eventually, instance_bytes
from tests.real.test_anonymization import files_of
from tests.servers import run_server

PICTURES = "{ studies { nodes { series { instances { frames { path } } } } } }"
BACKUPS = """{ backups {
  name createdAt numberOfStudies numberOfInstances bytes includesOrthanc verifiedAt } }"""
CREATE = "mutation { createBackup { id kind state } }"
VERIFY = "mutation ($name: String!) { verifyBackup(name: $name) { id } }"


def settings_of(data_dir: Path, backups: Path) -> Settings:
    return Settings(_env_file=None, data_dir=data_dir, backup_folder=backups, load_samples=False)


@dataclass(frozen=True, slots=True)
class Hospital:
    """A server with embedded stores, and its backups."""

    runtime: Runtime
    backups: Path
    seconds: Iterator[int] = field(default_factory=count)

    async def store(self, study: int, numbers: range) -> None:
        """Store instances of one series."""
        files = [
            SentFile(f"{study}-{number}", partial(io.BytesIO, instance_bytes(study, 1, number)))
            for number in numbers
        ]
        results = await self.runtime.ingest.store(files)
        assert {result.status.name for result in results} == {"STORED"}

    async def back_up(self) -> str:
        """Make the newest backup, of a second of its own; answers its name."""
        data_dir = self.runtime.settings.data_dir
        data = await embedded_data(data_dir, has_orthanc=True)
        now = datetime(2100, 1, 1, 0, 0, next(self.seconds), tzinfo=UTC)
        return (await create_backup(self.runtime.database, data, self.backups, now=now)).name


@pytest.fixture(scope="module")
async def hospital(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Hospital]:
    folder = tmp_path_factory.mktemp("hospital")
    settings = settings_of(folder / "data", folder / "backups")
    async with open_runtime(settings, address="http://127.0.0.1:1") as runtime:
        opened = Hospital(runtime, folder / "backups")
        await opened.store(1, range(10))
        yield opened


async def test_a_backup_during_an_import_is_restored_elsewhere(
    hospital: Hospital, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = hospital.runtime
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(run_server(runtime.settings, runtime))
        shown: Any = await server.graphql(PICTURES)
        path = shown["studies"]["nodes"][0]["series"][0]["instances"][0]["frames"][0]["path"]
        picture = (await server.http.get(path)).raise_for_status().content
        replaced_id = await stack.enter_async_context(being_replaced(hospital, monkeypatch))
        await runtime.audit.flush()
        others = {one.name for one in list_backups(hospital.backups)}
        importing = asyncio.create_task(_import(hospital))
        await asyncio.sleep(0)
        started: Any = await server.graphql(CREATE)
        job = await ended(runtime, require_node_id("Job", started["createBackup"]["id"]))
        importing.cancel()
        with suppress(asyncio.CancelledError):
            await importing
        assert job.state is JobState.SUCCEEDED
        assert job.completed == job.total
        listed: Any = await server.graphql(BACKUPS)
    [backup] = [one for one in listed["backups"] if one["name"] not in others]
    assert backup["includesOrthanc"] is True
    # Orthanc may keep more than one file of an instance.
    assert job.total is not None
    assert 10 <= backup["numberOfInstances"] <= job.total
    assert backup["verifiedAt"] is None

    restored = settings_of(tmp_path / "data", hospital.backups)
    await restore._restore(restored, hospital.backups, backup["name"])
    async with (
        open_runtime(restored, address="http://127.0.0.1:1") as again,
        run_server(restored, again) as server,
    ):
        assert again.sync is not None
        report = await again.sync.check()
        assert (report.up_to_date, report.faults) == (True, {})
        # What was being replaced was in MongoDB's part alone.
        expected = backup["numberOfInstances"] + REPLACED
        assert await again.trees.within(ALL).count_instances() == expected
        headers = [pydicom.dcmread(io.BytesIO(one)) for one in await files_of(again, replaced_id)]
        assert [header.StudyDescription for header in headers] == ["Thorax"] * REPLACED
        for name in ("replacements.files", "replacements.chunks"):
            assert await again.database[name].count_documents({}) == 0
        # The keys came along: the URL that was signed before still shows the same picture.
        assert (await server.http.get(path)).raise_for_status().content == picture
        actions = await again.database["audit"].distinct("action")
        assert {"view", "backup"} <= set(actions)
        jobs = await again.database["jobs"].find({"finishedAt": {"$ne": None}}).to_list()
        assert {(job["kind"], job["state"]) for job in jobs} >= {
            ("BACKUP", "CANCELLED"),
            ("MODIFY", "CANCELLED"),
        }


REPLACED = 1
"""Files: after a fault they are put back one after the other."""


@asynccontextmanager
async def being_replaced(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """Hold a modification where files are taken out of Orthanc and not stored again yet."""
    runtime = hospital.runtime
    await hospital.store(300, range(REPLACED))
    uid = pydicom.dcmread(io.BytesIO(instance_bytes(300, 1, 0))).StudyInstanceUID
    study = await runtime.database["studies"].find_one({"studyInstanceUID": uid})
    assert study is not None
    study_id: str = study["_id"]
    store, may_go = StudyFiles.store, asyncio.Event()

    async def waiting(self: StudyFiles, file: BinaryIO, job: RunningJob | None) -> StoreResult:
        await may_go.wait()
        return await store(self, file, job)

    async def are_taken_out() -> bool:
        assert runtime.orthanc is not None
        return not await runtime.orthanc.existing_studies([study_id])

    monkeypatch.setattr(StudyFiles, "store", waiting)
    options = ModificationOptions(replace={"StudyDescription": "Thorax"}, delete_source=True)
    job = await runtime.modifications.start(study, options, ADMIN, correlation_id="c0ffee")
    await eventually(are_taken_out)
    try:
        yield study_id
    finally:
        may_go.set()
    assert (await ended(runtime, job.id)).state is JobState.SUCCEEDED


async def _import(hospital: Hospital) -> None:
    for study in range(2, 100):
        await hospital.store(study, range(10))


async def test_the_next_backup_shares_the_files_that_did_not_change(hospital: Hospital) -> None:
    first = hospital.backups / await hospital.back_up()
    await hospital.store(200, range(1))
    second = hospital.backups / await hospital.back_up()
    shared: list[Path] = []
    new: list[Path] = []
    for path in (second / STORAGE).rglob("*"):
        if path.is_file():
            before = first / path.relative_to(second)
            (shared if before.exists() and before.samefile(path) else new).append(path)
    assert len(shared) >= 10
    assert len(new) == 1
    # What is removed from the first is still in the second.
    shutil.rmtree(first)
    assert all(path.is_file() for path in shared)


async def test_a_backup_is_verified_by_restoring_it_beside(hospital: Hospital) -> None:
    name = await hospital.back_up()
    backup = require_backup(hospital.backups, name)
    async with run_server(hospital.runtime.settings, hospital.runtime) as server:
        started: Any = await server.graphql(VERIFY, name=name)
        job = await ended(hospital.runtime, require_node_id("Job", started["verifyBackup"]["id"]))
        assert (job.state, job.error, job.failures) == (JobState.SUCCEEDED, None, [])
        listed: Any = await server.graphql(BACKUPS)
    verified = {one["name"]: one["verifiedAt"] for one in listed["backups"]}
    assert verified[name] is not None
    assert backup.manifest.orthanc is not None
    assert job.completed == job.total == backup.manifest.orthanc.files
    assert list(hospital.backups.glob(".verify-*")) == []


async def test_what_is_missing_or_damaged_is_named(hospital: Hospital) -> None:
    name = await hospital.back_up()
    backup = hospital.backups / name
    one, other, *_ = sorted(path for path in (backup / STORAGE).rglob("*") if path.is_file())
    # Copies first: the inodes are shared with other backups.
    content = bytearray(one.read_bytes())
    content[1000] ^= 1
    one.unlink()
    one.write_bytes(content)
    other.unlink()
    audit = backup / MONGODB / "audit.bson.gz"
    audit.write_bytes(audit.read_bytes()[:-20])
    found = await verify_backup(hospital.backups, name)
    assert set(found.faults) == {
        f"The file {one.name} is damaged.",
        f"The file {other.name} is missing.",
        "The file audit.bson.gz is damaged.",
    }
    (backup / INDEX).unlink()
    found = await verify_backup(hospital.backups, name)
    assert "Orthanc's index is missing." in found.faults
    assert require_backup(hospital.backups, name).verified_at is None
    runtime = hospital.runtime
    async with run_server(runtime.settings, runtime) as server:
        started: Any = await server.graphql(VERIFY, name=name)
        job = await ended(runtime, require_node_id("Job", started["verifyBackup"]["id"]))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "BACKUP_FAILED"
    assert len(job.failures) == 2
    shutil.rmtree(backup)


async def test_a_restore_never_overwrites(hospital: Hospital, tmp_path: Path) -> None:
    name = await hospital.back_up()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "x").touch()
    settings = settings_of(tmp_path / "data", hospital.backups)
    with pytest.raises(BackupFailed, match="is not empty"):
        await restore._restore(settings, hospital.backups, name)
    elsewhere = settings.model_copy(update={"orthanc_url": "http://127.0.0.1:1"})
    with pytest.raises(BackupFailed, match="unset ORTHANC_URL"):
        await restore._restore(elsewhere, hospital.backups, name)


async def test_documents_alone_are_saved_where_orthanc_is_not_embedded(
    hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runtime = hospital.runtime
    data = await embedded_data(runtime.settings.data_dir, has_orthanc=False)
    backup = await create_backup(runtime.database, data, tmp_path / "backups")
    assert backup.manifest.orthanc is None
    saved = backup.manifest.number_of_instances
    assert 10 <= saved <= await runtime.database["instances"].count_documents({})
    assert await command._verify(tmp_path / "backups", None) == 0
    assert f" {saved} instances." in capsys.readouterr().out
    with pytest.raises(BackupFailed, match="has no files of Orthanc"):
        await restore._restore(
            settings_of(tmp_path / "data", tmp_path), tmp_path / "backups", backup.name
        )


async def test_a_backup_that_fails_leaves_nothing(
    hospital: Hospital, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = list_backups(hospital.backups)

    def full(*_: object, **_options: object) -> None:
        raise OSError(28, "No space left on device", "x")

    monkeypatch.setattr("services.backup.orthanc_copy.shutil.copyfile", full)
    with pytest.raises(OSError, match="No space"):
        await hospital.back_up()
    assert list_backups(hospital.backups) == before
    assert list(hospital.backups.glob("*.partial")) == []


async def test_without_a_folder_there_are_no_backups(hospital: Hospital) -> None:
    runtime = replace(hospital.runtime, backup_folder=BackupFolder(None))
    async with run_server(runtime.settings, runtime) as server:
        listed: Any = await server.graphql(BACKUPS)
        refused = await server.http.post("/graphql", json={"query": CREATE})
    assert listed == {"backups": []}
    assert refused.json()["errors"][0]["extensions"]["code"] == "BACKUP_FAILED"


async def test_the_command_backs_up_beside_a_running_server(
    hospital: Hospital, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "graph.cli", "backup", str(tmp_path), "--keep", "1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "DATA_DIR": str(hospital.runtime.settings.data_dir)},
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    [backup] = list_backups(tmp_path)
    assert backup.manifest.orthanc is not None
    command._list(tmp_path)
    listed = capsys.readouterr().out
    assert listed.startswith(f"{backup.name}  ")
    assert listed.endswith(", unverified\n")
