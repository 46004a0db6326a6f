"""Two Orthancs on one PostgreSQL and one storage folder: uploads collide, reads are divided."""

import asyncio
import io
import json
import os
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import httpx
import pytest

from models import InstanceDocument
from services.dicom.patient_override import PatientOverride
from services.embedded.child import ChildSpec, supervise
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.embedded.orthanc_configuration import OrthancOptions, compose_configuration
from services.embedded.orthanc_installation import find_orthanc, find_plugins, usual_plugin_folders
from services.embedded.ports import find_free_port
from services.ingest.results import StoreStatus
from services.ingest.service import SentFile
from services.runtime import open_runtime
from services.settings import Settings
from tests.real.sync_stage import instance_bytes
from tests.servers import settings_on

_POSTGRESQL = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
_ORTHANC = Path(os.environ.get("ORTHANC_BINARY", "/usr/sbin/Orthanc"))
# A plugin of another release than Orthanc's stops it.
_FOLDERS = [plugin.parent for plugin in find_plugins(usual_plugin_folders(_ORTHANC))]
_PLUGIN = (_FOLDERS or [Path()])[0] / "libOrthancPostgreSQLIndex.so"

pytestmark = pytest.mark.skipif(
    not (_POSTGRESQL and _PLUGIN.exists()),
    reason="PostgreSQL or Orthanc's plugin for it is missing: "
    "apt-get install --no-install-recommends postgresql orthanc-postgresql",
)

_FILES = 30
_PASSWORD = "password-of-a-test"


def make_folder(folder: Path, user: str | None = None) -> None:
    folder.mkdir()
    if user is not None:
        shutil.chown(folder, user)
        for parent in folder.parents:
            if parent == Path(tempfile.gettempdir()):
                break
            parent.chmod(0o755)


@asynccontextmanager
async def running_postgresql(folder: Path) -> AsyncIterator[int]:
    """Run PostgreSQL with its data in a folder; yields its port."""
    binaries, port = _POSTGRESQL[-1], find_free_port()
    # PostgreSQL refuses to run as root.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    await asyncio.to_thread(make_folder, folder, "postgres" if as_user else None)
    data = folder / "data"
    initialize = await asyncio.create_subprocess_exec(
        *as_user, binaries / "initdb", "--no-sync", "--auth", "trust", "--username", "orthanc",
        "--pgdata", data, stdout=asyncio.subprocess.DEVNULL, cwd="/",
    )  # fmt: skip
    assert await initialize.wait() == 0
    spec = ChildSpec(
        name="PostgreSQL",
        command=[
            *as_user, str(binaries / "postgres"), "-D", str(data), "-p", str(port),
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={folder}",
            "-c", "fsync=off",
        ],
        log_path=folder.parent / "postgresql.log",
    )  # fmt: skip

    async def answers() -> None:
        while True:
            ready = await asyncio.create_subprocess_exec(
                binaries / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(port), "-U", "orthanc"
            )
            if await ready.wait() == 0:
                return
            await asyncio.sleep(0.1)

    async with supervise(spec, answers):
        yield port


@asynccontextmanager
async def running_orthanc(
    folder: Path, storage: Path, postgresql_port: int
) -> AsyncIterator[EmbeddedOrthanc]:
    """Run an Orthanc that shares database and storage with others."""
    await asyncio.to_thread(make_folder, folder)
    installation = find_orthanc()
    options = OrthancOptions(
        folder=folder,
        http_port=find_free_port(),
        username="test",
        password=_PASSWORD,
        plugins=[*installation.plugins, _PLUGIN],
    )
    configuration = compose_configuration(options) | {
        "StorageDirectory": str(storage),
        "PostgreSQL": {
            "EnableIndex": True,
            "EnableStorage": False,
            "Host": "127.0.0.1",
            "Port": postgresql_port,
            "Database": "postgres",
            "Username": "orthanc",
            "Lock": False,
            "IndexConnectionsCount": 5,
        },
    }
    path = folder / "orthanc.json"
    path.write_text(json.dumps(configuration), encoding="utf-8")
    url = f"http://127.0.0.1:{options.http_port}"
    spec = ChildSpec(
        name="Orthanc",
        command=[str(installation.binary), str(path)],
        log_path=folder / "orthanc.log",
    )

    async def answers() -> None:
        async with httpx.AsyncClient(auth=("test", _PASSWORD), trust_env=False) as http:
            while True:
                try:
                    if (await http.get(f"{url}/system")).is_success:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)

    async with supervise(spec, answers) as child:
        yield EmbeddedOrthanc(url, "test", _PASSWORD, child)


@asynccontextmanager
async def two_orthancs(folder: Path) -> AsyncIterator[list[EmbeddedOrthanc]]:
    (folder / "storage").mkdir()
    async with AsyncExitStack() as stack:
        port = await stack.enter_async_context(running_postgresql(folder / "postgresql"))
        yield [
            await stack.enter_async_context(
                running_orthanc(folder / name, folder / "storage", port)
            )
            for name in ("first", "second")
        ]


def sent(numbers: range) -> list[SentFile]:
    def opener(number: int) -> Callable[[], io.BytesIO]:
        return lambda: io.BytesIO(instance_bytes(1, 1, number))

    return [SentFile(f"{number}.dcm", opener(number)) for number in numbers]


async def test_colliding_uploads_are_stored_and_pictures_come_without_the_reader(
    mongodb: EmbeddedMongod, tmp_path: Path
) -> None:
    async with two_orthancs(tmp_path) as [first, second], AsyncExitStack() as stack:
        runtimes = [
            await stack.enter_async_context(open_runtime(settings))
            for settings in (
                settings_of(mongodb, tmp_path, first, [second]),
                settings_of(mongodb, tmp_path, second),
            )
        ]
        # Both write the same patient, study and series.
        results = await asyncio.gather(
            *(
                runtime.ingest.store(sent(range(start, start + _FILES)), PatientOverride())
                for runtime, start in zip(runtimes, (1, 1 + _FILES), strict=True)
            )
        )
        statuses = [(one.status, one.error) for stored in results for one in stored]
        assert statuses == [(StoreStatus.STORED, None)] * 2 * _FILES
        writer = runtimes[0]
        assert writer.orthanc is not None
        assert writer.sync is not None
        assert (await writer.orthanc.statistics()).instances == 2 * _FILES
        assert (await writer.sync.synchronize()).indexed == _FILES

        instances = await InstanceDocument.find_all().limit(8).to_list()
        os.kill(second.child.pid, signal.SIGKILL)
        for instance in instances:
            frame = await writer.frames.render(instance, 0)
            assert frame.content.startswith(b"\x89PNG")
        assert not writer.orthanc.is_refusing
        for runtime in runtimes:
            await runtime.database.client.drop_database(runtime.settings.mongodb_database)


def settings_of(
    mongodb: EmbeddedMongod,
    folder: Path,
    orthanc: EmbeddedOrthanc,
    readers: Sequence[EmbeddedOrthanc] = (),
) -> Settings:
    read_urls = [reader.url for reader in readers]
    return settings_on(mongodb, orthanc, folder, orthanc_read_urls=read_urls)
