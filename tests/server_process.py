"""A server in a process of its own, as people run it: with its own stores, or on another's."""

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.auth.roles import Role
from services.embedded.data_dir import read_running_stores
from services.frames.signing import generate_key
from tests.clients import http_client
from tests.patience import PATIENCE_SECONDS
from tests.real.sync_stage import eventually
from tests.servers import answered
from tests.tokens import write_tokens_file


@dataclass(frozen=True, slots=True)
class Served:
    """A server that answers.

    Attributes:
        url: Without a slash at the end.
        data_dir: Of its embedded stores and keys.
        process_id: Of the server.
    """

    url: str
    data_dir: Path
    http: httpx.AsyncClient
    process_id: int

    async def graphql(self, query: str, **variables: object) -> dict[str, object]:
        """Execute an operation that must succeed; answers its data."""
        return await answered(self.http, query, variables)


@asynccontextmanager
async def serve(
    data_dir: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    """Run a server with nothing but these settings; open to everybody on this machine."""
    with (data_dir / "serve.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).parent / "orthanc-graphql",
            *("serve", "--port", "0", "--data-dir", data_dir),
            cwd=data_dir,
            env={"PATH": os.environ["PATH"], **(environment or {})},
            stdout=PIPE,
            stderr=log,
        )
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            url = await _announced_url(process, data_dir / "serve.log")
        async with http_client(url) as http:
            yield Served(url, data_dir, http, process.pid)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.communicate()


@asynccontextmanager
async def serve_guarded(served: Served, data_dir: Path) -> AsyncIterator[tuple[Served, str]]:
    """Run a server on the same stores that asks for tokens; answers a viewer's too.

    Its database is another, because tokens are kept there: the first server stays open.
    """
    running = await asyncio.to_thread(read_running_stores, served.data_dir)
    assert running is not None
    token = write_tokens_file(data_dir / "tokens.json", {"reader": Role.VIEWER})["reader"]
    stores = running.stores
    environment = {
        "MONGODB_URL": stores.mongodb_url or "",
        "MONGODB_DATABASE": "guarded",
        "ORTHANC_URL": stores.orthanc_url or "",
        "ORTHANC_USERNAME": stores.orthanc_username,
        "ORTHANC_PASSWORD": stores.orthanc_password,
        "FRAME_URL_KEYS": generate_key(),
        # The Orthanc of the first server tells that one alone what is deleted.
        "SYNC_INTERVAL_SECONDS": "1",
    }
    async with serve(data_dir, environment) as guarded:
        await until_in_step(served, guarded, token)
        yield guarded, token


async def until_in_step(served: Served, guarded: Served, token: str) -> None:
    """Wait until the second server has indexed what the first has, and nothing else."""
    asked = {"query": "{ studies(first: 500) { nodes { studyInstanceUID numberOfInstances } } }"}
    headers = {"Authorization": f"Bearer {token}"}

    async def says_the_same() -> bool:
        first = (await served.http.post("/graphql", json=asked)).json()
        second = (await guarded.http.post("/graphql", json=asked, headers=headers)).json()
        lists = [sorted(map(str, one["data"]["studies"]["nodes"])) for one in (first, second)]
        return lists[0] == lists[1]

    await eventually(says_the_same)


async def _announced_url(process: Process, log: Path) -> str:
    assert process.stdout is not None
    async for line in process.stdout:
        if b"Study browser" in line:
            return line.split()[-1].decode().rstrip("/")
    pytest.fail(await asyncio.to_thread(log.read_text))
