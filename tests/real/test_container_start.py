"""The first start of compose.yaml, by the programs of this machine instead of its images."""

import asyncio
import json
import shutil
from asyncio.subprocess import DEVNULL
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
from click.testing import CliRunner

from graph.cli import main
from services.embedded.mongod import find_mongod
from services.embedded.orthanc_installation import find_orthanc
from services.embedded.ports import LOOPBACK, find_free_port
from services.embedded.replica_set import REPLICA_SET, become_primary
from services.installation.container_secrets import Places, make_secrets
from tests.patience import PATIENCE_SECONDS
from tests.real.shell import Shell, served
from tests.real.sync_stage import eventually

ADMIN = ("--role", "admin", "--name", "admin", "--once-into")


@asynccontextmanager
async def running(*command: object) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *(str(part) for part in command), stdout=DEVNULL, stderr=DEVNULL
    )
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def mongodb(secrets: Path, folder: Path, port: int) -> AsyncIterator[None]:
    """What the entry point and the health check of the container do."""
    keyfile = folder / "keyfile"
    shutil.copy(secrets / "mongodb" / "keyfile", keyfile)
    keyfile.chmod(0o400)
    (folder / "db").mkdir()
    mongod = (
        *(find_mongod(), "--dbpath", folder / "db", "--replSet", REPLICA_SET, "--nounixsocket"),
        *("--keyFile", keyfile, "--port", port, "--wiredTigerCacheSizeGB", "0.25"),
    )
    password = (secrets / "mongodb" / "password").read_text(encoding="utf-8")
    async with running(*mongod):
        async with asyncio.timeout(PATIENCE_SECONDS):
            await become_primary(port, password)
        yield


@asynccontextmanager
async def orthanc(secrets: Path, folder: Path, port: int) -> AsyncIterator[None]:
    """What the image of Orthanc does with the files in /run/secrets and its environment."""
    given = json.loads((secrets / "orthanc" / "orthanc.json").read_text(encoding="utf-8"))
    others = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": True,
        "AuthenticationEnabled": True,
    }
    configuration = folder / "configuration.json"
    configuration.write_text(json.dumps(given | others), encoding="utf-8")
    async with running(find_orthanc().binary, configuration):
        yield


async def test_the_secrets_of_containers_fit_together(tmp_path: Path) -> None:
    secrets, ports = tmp_path / "secrets", (find_free_port(), find_free_port())
    places = Places(
        mongodb=f"{LOOPBACK}:{ports[0]}",
        replica_set=REPLICA_SET,
        orthanc_folder=str(secrets / "orthanc"),
    )
    make_secrets(secrets, places)
    shell = Shell(
        {
            "SECRETS_DIR": str(secrets / "server"),
            "ORTHANC_URL": f"http://{LOOPBACK}:{ports[1]}",
            "DATA_DIR": str(tmp_path / "data"),
        }
    )
    token = tmp_path / "admin-token"
    async with mongodb(secrets, tmp_path, ports[0]), orthanc(secrets, tmp_path, ports[1]):
        made = await shell.run("token", "create", *ADMIN, str(token))
        assert (made.code, made.output) == (0, ""), made.errors
        # At each later start.
        again = CliRunner().invoke(main, ["token", "create", *ADMIN, str(token)])
        assert (again.exit_code, again.stdout) == (0, "")
        assert token.stat().st_mode & 0o777 == 0o600
        # As in the container: all addresses, which a server without a token refuses.
        async with served(shell, "--host", "0.0.0.0") as server:  # noqa: S104  # as there
            arguments = ["health", "--url", f"{server.url}/healthz"]
            asked = await asyncio.to_thread(CliRunner().invoke, main, arguments)
            assert asked.exit_code == 0
            text = await asyncio.to_thread(token.read_text, "utf-8")
            headers = {"Authorization": f"Bearer {text.strip()}"}
            async with httpx.AsyncClient(
                base_url=server.url, headers=headers, timeout=PATIENCE_SECONDS, trust_env=False
            ) as http:

                async def is_well() -> bool:
                    status = (await http.get("/api/status")).json()
                    return all(status[part]["status"] == "ok" for part in ("mongodb", "orthanc"))

                await eventually(is_well)
                query = {"query": "{ studies { totalCount } }"}
                assert (await http.post("/graphql", json=query)).json()["data"]
                http.headers.clear()
                assert (await http.post("/graphql", json=query)).status_code == 401
