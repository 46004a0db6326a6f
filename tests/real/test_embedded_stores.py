import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pydicom.data
import pytest
from pymongo import AsyncMongoClient
from pymongo.errors import AutoReconnect

from services.embedded import replica_set
from services.embedded.data_dir import DataDirInUse, RunningStores, Stores, read_running_stores
from services.embedded.failures import StartFailed
from services.embedded.mongod import run_mongod
from services.embedded.orthanc import run_orthanc
from services.embedded.orthanc_configuration import DicomServer
from services.embedded.ports import LOOPBACK, find_free_port
from services.embedded.stores import open_stores
from tests.clients import http_client
from tests.patience import PATIENCE_SECONDS
from tests.real.sync_stage import modality_client

_SERVER = """
import asyncio, sys
from pathlib import Path
from services.embedded.stores import open_stores
async def main():
    async with open_stores(data_dir=Path(sys.argv[1]), embed_mongodb=True, embed_orthanc=True):
        print("ready", flush=True)
        await asyncio.Event().wait()
asyncio.run(main())
"""


async def test_data_survive_a_restart_under_the_same_addresses(tmp_path: Path) -> None:
    async with open_stores(data_dir=tmp_path, embed_mongodb=True, embed_orthanc=True) as first:
        await _insert(first, {"_id": "kept"})
        instance = await _store_ct(first)
        assert read_running_stores(tmp_path) == RunningStores(os.getpid(), "", first)
    assert _processes_of(tmp_path) == []
    assert read_running_stores(tmp_path) is None
    async with open_stores(data_dir=tmp_path, embed_mongodb=True, embed_orthanc=True) as second:
        assert second == first
        assert await _ids(second) == ["kept"]
        async with _orthanc(second) as orthanc:
            assert (await orthanc.get("/instances")).json() == [instance]


async def test_mongodb_moves_to_another_port_when_its_own_is_taken(tmp_path: Path) -> None:
    async with run_mongod(tmp_path) as first:
        await _insert(Stores(mongodb_url=first.url), {"_id": "kept"})
    async with (
        _hanging_up(int((tmp_path / "port").read_text())),
        run_mongod(tmp_path) as second,
    ):
        assert second.url != first.url
        assert await _ids(Stores(mongodb_url=second.url)) == ["kept"]


async def test_mongodb_starts_although_its_connections_break_while_it_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ensure_user = replica_set._ensure_user
    breaks = [AutoReconnect("closed"), AutoReconnect("closed")]

    async def breaking(*clients: Any) -> None:
        if breaks:
            raise breaks.pop()
        await ensure_user(*clients)

    monkeypatch.setattr(replica_set, "_ensure_user", breaking)
    async with run_mongod(tmp_path) as mongod:
        await _insert(Stores(mongodb_url=mongod.url), {"_id": "kept"})
    assert breaks == []


async def test_mongodb_has_transactions_and_refuses_strangers(tmp_path: Path) -> None:
    async with run_mongod(tmp_path) as mongod:
        async with (
            AsyncMongoClient[dict[str, object]](mongod.url) as client,
            client.start_session() as session,
            await session.start_transaction(),
        ):
            await client.test.things.insert_one({"_id": 1}, session=session)
        stranger = mongod.url.replace((tmp_path / "password").read_text(), "wrong")
        async with AsyncMongoClient[dict[str, object]](stranger) as client:
            with pytest.raises(Exception, match="Authentication failed"):
                await client.test.things.find_one()


async def test_a_lost_password_of_mongodb_says_what_to_do(tmp_path: Path) -> None:
    async with run_mongod(tmp_path):
        pass
    (tmp_path / "password").unlink()
    with pytest.raises(StartFailed, match="Restore the file `password`"):
        async with run_mongod(tmp_path):
            pytest.fail("it started with another password")


async def test_orthanc_wants_its_password_and_has_its_plugins(tmp_path: Path) -> None:
    async with run_orthanc(tmp_path) as orthanc, http_client(orthanc.url) as client:
        assert (await client.get("/system")).status_code == 401
        client.auth = httpx.BasicAuth(orthanc.username, orthanc.password)
        plugins = (await client.get("/plugins")).json()
        assert {"dicom-web", "gdcm"} <= set(plugins)
        lua = await client.post("/tools/execute-script", content=b"print(1)")
        assert lua.status_code == 403


async def test_orthanc_listens_for_modalities_only_when_asked(tmp_path: Path) -> None:
    port = find_free_port()
    async with run_orthanc(tmp_path):
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection(LOOPBACK, port)
    async with run_orthanc(tmp_path, dicom=DicomServer(port)):
        _reader, writer = await asyncio.open_connection(LOOPBACK, port)
        writer.close()
        await writer.wait_closed()


async def test_orthanc_runs_the_lua_scripts_it_is_given(tmp_path: Path) -> None:
    script = tmp_path / "hello.lua"
    script.write_text("print('the script is loaded')\n")
    async with run_orthanc(tmp_path / "orthanc", lua_scripts=[script]):
        log = (tmp_path / "orthanc" / "orthanc.log").read_text()
    assert "the script is loaded" in log


async def test_killed_stores_come_back_at_the_same_address(tmp_path: Path) -> None:
    restarts: list[str] = []
    async with open_stores(
        data_dir=tmp_path, embed_mongodb=True, embed_orthanc=True, on_restart=restarts.append
    ) as stores:
        await _insert(stores, {"_id": "kept"})
        for pid in _processes_of(tmp_path):
            os.kill(pid, signal.SIGKILL)
        await _until(lambda: _answers_ok(stores))
        assert await _ids(stores) == ["kept"]
        await _until(lambda: _is(len(restarts) == 2))
        assert sorted(restarts) == ["MongoDB", "Orthanc"]


async def test_passwords_stand_in_no_argument_and_in_no_file_that_others_may_read(
    tmp_path: Path,
) -> None:
    async with open_stores(data_dir=tmp_path, embed_mongodb=True, embed_orthanc=True) as stores:
        _assert_secret(stores.orthanc_password.encode(), tmp_path)
        _assert_secret((tmp_path / "mongodb" / "password").read_bytes(), tmp_path)


def _assert_secret(secret: bytes, folder: Path) -> None:
    pids = _processes_of(folder)
    assert len(pids) == 2
    for pid in pids:
        assert secret not in Path(f"/proc/{pid}/cmdline").read_bytes()
        assert secret not in Path(f"/proc/{pid}/environ").read_bytes()
    files = [path for path in folder.rglob("*") if path.is_file()]
    exposed = [path for path in files if path.stat().st_mode & 0o077]
    assert not any(secret in path.read_bytes() for path in exposed)
    logs = [path for path in files if path.suffix == ".log"]
    assert len(logs) == 2
    assert not any(secret in path.read_bytes() for path in logs)


async def test_a_second_start_is_refused_while_the_first_goes_on(tmp_path: Path) -> None:
    async with open_stores(
        data_dir=tmp_path, embed_mongodb=True, embed_orthanc=False, address="http://127.0.0.1:8000"
    ) as first:
        with pytest.raises(DataDirInUse, match=rf"Process {os.getpid()} at http://127.0.0.1:8000"):
            async with open_stores(data_dir=tmp_path, embed_mongodb=True, embed_orthanc=True):
                pytest.fail("two servers")
        assert await _ids(first) == []


async def test_without_embedded_stores_the_data_directory_is_left_alone(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    async with open_stores(data_dir=folder, embed_mongodb=False, embed_orthanc=False) as stores:
        assert stores == Stores()
    assert not folder.exists()


async def test_a_store_that_fails_takes_the_other_with_it(tmp_path: Path) -> None:
    with pytest.raises(StartFailed, match="Orthanc stopped at its start"):
        async with open_stores(
            data_dir=tmp_path,
            embed_mongodb=True,
            embed_orthanc=True,
            lua_scripts=[tmp_path / "missing.lua"],
        ):
            pytest.fail("it started")
    assert _processes_of(tmp_path) == []
    async with open_stores(data_dir=tmp_path, embed_mongodb=True, embed_orthanc=True) as stores:
        assert await _answers_ok(stores)


@pytest.mark.parametrize("ending", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
async def test_no_child_outlives_the_server(tmp_path: Path, ending: signal.Signals) -> None:
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _SERVER, str(tmp_path),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert server.stdout is not None
    assert await asyncio.wait_for(server.stdout.readline(), PATIENCE_SECONDS) == b"ready\n"
    assert len(_processes_of(tmp_path / "mongodb") + _processes_of(tmp_path / "orthanc")) == 2
    running = json.loads((tmp_path / "stores.json").read_text())
    assert running["pid"] == server.pid
    server.send_signal(ending)
    await asyncio.wait_for(server.wait(), PATIENCE_SECONDS)
    await _until(lambda: _is(_processes_of(tmp_path) == []))
    assert read_running_stores(tmp_path) is None


@asynccontextmanager
async def _hanging_up(port: int) -> AsyncIterator[None]:
    """Take a port and close every connection to it."""

    def hang_up(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with await asyncio.start_server(hang_up, LOOPBACK, port):
        yield


async def _until(holds: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            if await holds():
                return
            await asyncio.sleep(0.02)


async def _is(value: bool) -> bool:
    return value


async def _answers_ok(stores: Stores) -> bool:
    async with _orthanc(stores) as orthanc:
        try:
            return (await orthanc.get("/system")).status_code == 200
        except httpx.TransportError:
            return False


def _orthanc(stores: Stores) -> httpx.AsyncClient:
    return modality_client(stores)


async def _store_ct(stores: Stores) -> str:
    async with _orthanc(stores) as orthanc:
        answer = await orthanc.post("/instances", content=_read_ct())
    instance: str = answer.json()["ID"]
    return instance


def _read_ct() -> bytes:
    path = pydicom.data.get_testdata_file("CT_small.dcm")
    assert isinstance(path, str)
    return Path(path).read_bytes()


async def _insert(stores: Stores, document: dict[str, object]) -> None:
    async with AsyncMongoClient[dict[str, object]](stores.mongodb_url) as client:
        await client.test.things.insert_one(document)


async def _ids(stores: Stores) -> list[object]:
    async with AsyncMongoClient[dict[str, object]](stores.mongodb_url) as client:
        return [document["_id"] async for document in client.test.things.find()]


def _processes_of(folder: Path) -> list[int]:
    """Find the children of a data directory: their arguments name it, and they are stores."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if arguments[0].endswith((b"mongod", b"Orthanc")) and any(
            str(folder).encode() in argument for argument in arguments
        ):
            found.append(int(entry.name))
    return found
