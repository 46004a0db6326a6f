"""`import`, `migrate` and `sync` as a person runs them: processes with exit codes and output."""

import asyncio
import json
import os
import re
import signal
import sqlite3
import zipfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from services.settings import Settings
from tests.clients import http_client
from tests.real.shell import Shell, ended, served
from tests.real.slow_proxy import run_slow_proxy
from tests.real.sync_stage import eventually, instance_bytes, modality_client


@pytest.fixture
def shell(settings: Settings, tmp_path: Path) -> Shell:
    return Shell.on_stores_of(settings, tmp_path / "data")


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[AsyncDatabase[dict[str, Any]]]:
    assert settings.mongodb_url is not None
    async with AsyncMongoClient[dict[str, Any]](settings.mongodb_url.get_secret_value()) as client:
        yield client[settings.mongodb_database]
        await client.drop_database(settings.mongodb_database)
        await client.drop_database("old_system")


@pytest.fixture
async def orthanc_http(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with modality_client(settings) as http:
        yield http


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """Two images, an archive of two, a text, and a broken image."""
    root = tmp_path / "disk"
    (root / "deep").mkdir(parents=True)
    (root / "1.dcm").write_bytes(instance_bytes(1, 1, 1))
    (root / "deep" / "2").write_bytes(instance_bytes(1, 1, 2))
    with zipfile.ZipFile(root / "more.zip", "w") as archive:
        for number in (3, 4):
            archive.writestr(f"{number}.dcm", instance_bytes(1, 1, number))
    (root / "README.txt").write_text("Read me.")
    (root / "broken.dcm").write_bytes(instance_bytes(1, 1, 5)[:-1000])
    return root


async def test_import_reports_what_fails_and_a_second_one_sends_nothing(
    shell: Shell, disk: Path, tmp_path: Path, database: AsyncDatabase[dict[str, Any]]
) -> None:
    report, again = tmp_path / "report.jsonl", tmp_path / "again.jsonl"
    before = await asyncio.to_thread(written_at, disk)
    dry = await shell.run("import", "--dry-run", str(disk))
    assert (dry.code, await database["instances"].count_documents({})) == (1, 0)
    assert dry.output == (
        "Dry run, 5 files: 3 would be stored, 0 already there, 1 would be skipped, 1 would fail\n"
    )
    first = await shell.run("import", str(disk), "--report", str(report))
    assert first.code == 1
    assert first.output == (
        "5 files, 6 with the members of archives: 4 stored, 0 already there, 1 skipped, 1 failed\n"
    )
    lines = [json.loads(line) for line in report.read_text().splitlines()]
    assert [(line["status"], Path(line["path"]).name, line["code"]) for line in lines[:-1]] == [
        ("skipped", "README.txt", "NOT_DICOM"),
        ("failed", "broken.dcm", "TRUNCATED"),
    ]
    assert await database["instances"].count_documents({}) == 4
    assert noted(tmp_path / "data") == {"1.dcm": 1, "2": 1, "more.zip": 2}
    (disk / "broken.dcm").unlink()
    second = await shell.run("import", str(disk), "--report", str(again))
    assert second.code == 0
    assert second.output == (
        "4 files, 5 with the members of archives: 0 stored, 4 already there, 1 skipped, 0 failed\n"
    )
    after = await asyncio.to_thread(written_at, disk)
    assert after == {path: at for path, at in before.items() if path.name != "broken.dcm"}


async def test_import_goes_on_after_ctrl_c(
    shell: Shell, tmp_path: Path, database: AsyncDatabase[dict[str, Any]]
) -> None:
    number_of_files = 60
    root = tmp_path / "many"
    root.mkdir()
    content = b""
    for number in range(number_of_files):
        content = instance_bytes(1, 1, number)
        (root / f"{number:03}.dcm").write_bytes(content)

    async def has_begun() -> bool:
        return await database["instances"].count_documents({}) > 0

    orthanc_url = httpx.URL(shell.environment["ORTHANC_URL"])
    assert orthanc_url.port is not None
    # Orthanc receives some of the files, so that the import cannot end before the signal.
    async with run_slow_proxy(orthanc_url.port, held_after_bytes=20 * len(content)) as proxy:
        held_back = {"ORTHANC_URL": str(orthanc_url.copy_with(port=proxy.port))}
        process = await Shell(shell.environment | held_back).start(
            "import", "--concurrency", "1", str(root)
        )
        ending = asyncio.create_task(ended(process))
        await eventually(has_begun)
        process.send_signal(signal.SIGINT)
        proxy.released.set()
        stopped = await ending
    assert stopped.code == 130
    assert "Traceback" not in stopped.errors
    stored_before = await database["instances"].count_documents({})
    assert 0 < stored_before < number_of_files
    resumed = await shell.run("import", str(root))
    assert resumed.code == 0
    found = re.fullmatch(r"60 files: (\d+) stored, (\d+) already there, .*\n", resumed.output)
    assert found is not None
    assert int(found[1]) <= number_of_files - stored_before
    assert int(found[2]) >= stored_before
    assert await database["instances"].count_documents({}) == number_of_files


async def test_sync_tells_differences_by_its_exit_code_and_repairs_them(
    shell: Shell, orthanc_http: httpx.AsyncClient, database: AsyncDatabase[dict[str, Any]]
) -> None:
    (await orthanc_http.post("/instances", content=instance_bytes(1, 1, 1))).raise_for_status()
    check = await shell.run("sync", "--check")
    assert (check.code, check.output) == (
        1,
        "Instances to be indexed: 1, to be removed: 0; studies to be counted again: 0.\n",
    )
    assert await database["instances"].count_documents({}) == 0
    repair = await shell.run("sync")
    assert repair.code == 0
    assert "indexed: 1, removed: 0" in repair.output
    check = await shell.run("sync", "--check")
    assert (check.code, check.output) == (0, "Up to date.\n")
    away = Shell(shell.environment | {"ORTHANC_URL": "http://127.0.0.1:9"})
    failed = await away.run("sync", "--check")
    assert failed.code == 1
    assert "Traceback" not in failed.errors
    assert failed.errors.startswith("Error: ")


async def test_sync_prints_the_script_for_an_orthanc_of_ones_own(shell: Shell) -> None:
    url = "http://pacs-api:8000"
    without = await shell.run("sync", "--print-lua-script", url)
    assert without.code == 1
    assert "ORTHANC_EVENTS_SECRET" in without.errors
    secret = {"ORTHANC_EVENTS_SECRET": "abc123"}
    printed = await Shell(shell.environment | secret).run("sync", "--print-lua-script", url)
    assert printed.code == 0
    assert f"'{url}/internal/orthanc-events'" in printed.output
    assert "['X-Orthanc-Events-Secret'] = 'abc123'" in printed.output
    assert "LuaScripts" in printed.errors


async def test_migrate_links_the_old_records_once(
    shell: Shell, settings: Settings, tmp_path: Path, database: AsyncDatabase[dict[str, Any]]
) -> None:
    path = tmp_path / "old.dcm"
    path.write_bytes(instance_bytes(1, 1, 1))
    uid = "1.2.826.0.1.3680043.8.498.1.1.1"
    record = {"sopInstanceUID": uid, "localFilePath": str(path)}
    missing = {"_id": 9, "localFilePath": str(tmp_path / "missing.dcm")}
    records = database.client["old_system"]["instances"]
    await records.insert_many([record | {"_id": n, "instanceNumber": n} for n in (1, 2)])
    await records.insert_one(missing)
    assert settings.mongodb_url is not None
    source = settings.mongodb_url.get_secret_value().replace("/?", "/old_system?")
    report = tmp_path / "report.jsonl"
    arguments = ("migrate", "--source", source, "--report", str(report))
    dry = await shell.run(*arguments, "--dry-run")
    assert dry.code == 1
    assert dry.output == (
        "Dry run, 2 files: 1 would be stored, 0 already there, 0 would be skipped, 1 would fail; "
        "records to be linked: 2\n"
    )
    assert await records.count_documents({"orthancInstanceId": {"$exists": True}}) == 0
    first = await shell.run(*arguments)
    assert (first.code, first.output) == (
        1,
        "2 files: 1 stored, 0 already there, 0 skipped, 1 failed; linked records: 2\n",
    )
    [fault, _] = [json.loads(line) for line in report.read_text().splitlines()]
    assert (fault["path"], fault["code"]) == (missing["localFilePath"], "FILE_MISSING")
    linked = await records.find({"orthancInstanceId": {"$exists": True}}).sort("_id").to_list()
    assert [(one["_id"], one["orthancFrameIndex"]) for one in linked] == [(1, 0), (2, 1)]
    assert {one["useOrthancPreview"] for one in linked} == {True}
    assert await records.find_one({"_id": 9}) == missing
    await records.delete_one({"_id": 9})
    again = await shell.run(*arguments)
    assert (again.code, again.output) == (
        0,
        "0 files: 0 stored, 0 already there, 0 skipped, 0 failed; linked records: 0\n",
    )


async def test_commands_use_the_stores_of_a_running_server_and_start_them_without(
    disk: Path, tmp_path: Path
) -> None:
    shell = Shell({"DATA_DIR": str(tmp_path / "data"), "LOAD_SAMPLES": "false"})
    query = {"query": "{ studies { nodes { numberOfInstances } } }"}
    async with served(shell) as server, http_client(server.url) as http:
        beside = await shell.run("import", str(disk / "1.dcm"))
        assert (beside.code, beside.output[:16]) == (0, "1 file: 1 stored")
        answer = (await http.post("/graphql", json=query)).json()
        assert answer["data"]["studies"]["nodes"] == [{"numberOfInstances": 1}]
    alone = await shell.run("import", str(disk / "1.dcm"), str(disk / "deep"))
    assert alone.output == "2 files: 1 stored, 1 already there, 0 skipped, 0 failed\n"
    check = await shell.run("sync", "--check")
    assert (check.code, check.output) == (0, "Up to date.\n")


def written_at(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def noted(data_dir: Path) -> dict[str, int]:
    """Return the names in the journal with the number of instances of each."""
    connection = sqlite3.connect(data_dir / "journals" / "import.sqlite3")
    rows = connection.execute("SELECT path, instance_ids FROM sent_files").fetchall()
    connection.close()
    return {Path(os.fsdecode(path)).name: len(ids.split()) for path, ids in rows}
