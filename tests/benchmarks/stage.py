"""The stages of benchmarks: this server as its own process, on fresh stores."""

import asyncio
import os
import secrets
import signal
import sys
import tempfile
from asyncio.subprocess import Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from pymongo import AsyncMongoClient
from pymongo.asynchronous.database import AsyncDatabase

from services.embedded.data_dir import RunningStores, read_running_stores
from services.embedded.mongod import EmbeddedMongod
from services.embedded.ports import find_free_port
from services.frames.signing import generate_key
from tests.benchmarks.synthetic_index import IndexSize, fill

_START_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Server:
    """A server under test.

    Attributes:
        http: A client of this server.
        pid: Of the server's process.
    """

    http: httpx.AsyncClient
    pid: int

    @property
    def url(self) -> str:
        """Where it is, without a slash at the end."""
        return str(self.http.base_url).rstrip("/")

    async def graphql(self, query: str, variables: Mapping[str, object] | None = None) -> Any:  # noqa: ANN401  # JSON is what it is
        """Execute an operation that must succeed; answers its data."""
        response = await self.http.post(
            "/graphql", json={"query": query, "variables": variables or {}}
        )
        body = response.json()
        if "errors" in body:
            raise RuntimeError(body["errors"])
        return body["data"]

    async def wait_for_instances(self, count: int) -> None:
        """Wait until so many instances are indexed."""
        query = "{ server { numberOfInstances } }"
        while True:
            if (await self.graphql(query))["server"]["numberOfInstances"] >= count:
                return
            await asyncio.sleep(0.1)


@dataclass(frozen=True, slots=True)
class Stage(Server):
    """A server under test and the Orthanc behind it.

    Attributes:
        orthanc: A client of its Orthanc, the rival.
    """

    orthanc: httpx.AsyncClient
    stores: RunningStores


@dataclass(frozen=True, slots=True)
class IndexStage(Server):
    """A server that shows an index without Orthanc, so that its documents may be made up.

    Attributes:
        database: Where the index is.
    """

    database: AsyncDatabase[dict[str, Any]]


@asynccontextmanager
async def open_stage(**environment: str) -> AsyncIterator[Stage]:
    """Start the server with empty embedded stores and without samples."""
    with tempfile.TemporaryDirectory(prefix="orthanc-graphql-") as folder:
        async with open_server(Path(folder), **environment) as server:
            running = await asyncio.to_thread(read_running_stores, Path(folder))
            if running is None or running.stores.orthanc_url is None:
                raise RuntimeError("the server runs without its stores")
            stores = running.stores
            async with httpx.AsyncClient(
                base_url=stores.orthanc_url or "",
                auth=(stores.orthanc_username, stores.orthanc_password),
                headers={"Accept-Encoding": "identity"},
                # Orthanc closes what is idle for a second, and a request may cross that.
                limits=httpx.Limits(keepalive_expiry=0.5),
                timeout=600,
                trust_env=False,
            ) as orthanc:
                yield Stage(server.http, server.pid, orthanc, running)


@asynccontextmanager
async def open_index_stage(mongod: EmbeddedMongod, size: IndexSize) -> AsyncIterator[IndexStage]:
    """Start the server on a made index of its own, with PACS integration off."""
    name = f"benchmark_{secrets.token_hex(6)}"
    with tempfile.TemporaryDirectory(prefix="orthanc-graphql-") as folder:
        async with AsyncMongoClient[dict[str, Any]](mongod.url) as client:
            # Before the server makes its indexes: that is quicker than keeping them up to date.
            await fill(client[name], size)
            async with open_server(
                Path(folder),
                MONGODB_URL=mongod.url,
                MONGODB_DATABASE=name,
                ENABLE_PACS_INTEGRATION="false",
                FRAME_URL_KEYS=generate_key(),
            ) as server:
                yield IndexStage(server.http, server.pid, client[name])


@asynccontextmanager
async def open_server(
    data_dir: Path, *, arguments: Sequence[str] = (), **environment: str
) -> AsyncIterator[Server]:
    """Start the server; it is ready when entered and gone when left.

    Args:
        data_dir: Of embedded stores, kept.
        arguments: Of the command besides.
        environment: Settings besides.
    """
    port = find_free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "graph.cli", "serve", "--port", str(port),
        "--data-dir", str(data_dir), "--log-level", "warning", *arguments,
        env=os.environ | {"LOAD_SAMPLES": "false"} | environment,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{port}", timeout=600, trust_env=False
        ) as http:
            await _until_ready(http, process)
            yield Server(http, process.pid)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def _until_ready(http: httpx.AsyncClient, process: Process) -> None:
    async with asyncio.timeout(_START_SECONDS):
        while process.returncode is None:
            try:
                if (await http.get("/readyz")).is_success:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.02)
    raise RuntimeError("the server stopped at its start")
