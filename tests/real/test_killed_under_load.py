"""Whatever is killed under an upload load, nothing acknowledged is lost, and both stores agree.

KILL_ROUNDS sets how many processes are killed, one after the other: 3 unless it is set (each kind
once), 28 on demand.
"""

import asyncio
import itertools
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import httpx
import pytest
from pymongo import AsyncMongoClient

from services.embedded.data_dir import Stores, read_running_stores
from tests.patience import PATIENCE_SECONDS
from tests.real.shell import Served, Shell, served
from tests.real.sync_stage import eventually, instance_bytes, modality_client

ROUNDS = int(os.environ.get("KILL_ROUNDS", "3"))
KINDS = ("server", "Orthanc", "mongod")

UPLOAD = """mutation ($files: [Upload!]!) { uploadDicom(files: $files) {
  results { status instance { orthancInstanceId } } } }"""

_FILES_PER_REQUEST = 4
_CLIENTS = 3
_ACKNOWLEDGED_BEFORE_A_KILL = 8
_AGREE_SECONDS = 10.0 if "KILL_ROUNDS" in os.environ else PATIENCE_SECONDS


@dataclass(slots=True)
class Load:
    """Clients that upload without a pause; they remember what was acknowledged."""

    acknowledged: set[str] = field(default_factory=set)
    url: str = ""
    numbers: "itertools.count[int]" = field(default_factory=itertools.count)
    is_over: asyncio.Event = field(default_factory=asyncio.Event)

    async def wait_for(self, count: int) -> None:
        """Wait until so many files are acknowledged."""

        async def is_enough() -> bool:
            return len(self.acknowledged) >= count

        await eventually(is_enough, within_seconds=60)

    async def upload_until_over(self) -> None:
        """Send files; a server that is away is asked again."""
        async with httpx.AsyncClient(timeout=60) as http:
            while not self.is_over.is_set():
                try:
                    await self._upload(http)
                except (httpx.TransportError, ValueError):
                    await asyncio.sleep(0.05)

    async def _upload(self, http: httpx.AsyncClient) -> None:
        files = [next(self.numbers) for _ in range(_FILES_PER_REQUEST)]
        operation = {"query": UPLOAD, "variables": {"files": [None] * len(files)}}
        places = {str(place): [f"variables.files.{place}"] for place in range(len(files))}
        answer = await http.post(
            f"{self.url}/graphql",
            headers={"GraphQL-Preflight": "1"},
            data={"operations": json.dumps(operation), "map": json.dumps(places)},
            files={
                str(place): (f"{number}.dcm", instance_bytes(1 + number % 5, 1, number))
                for place, number in enumerate(files)
            },
        )
        results = ((answer.json().get("data") or {}).get("uploadDicom") or {}).get("results", [])
        self.acknowledged |= {
            result["instance"]["orthancInstanceId"]
            for result in results
            if result["status"] in ("STORED", "ALREADY_STORED") and result["instance"]
        }


@dataclass(frozen=True, slots=True)
class Sets:
    """What both stores hold, by Orthanc's identifiers."""

    held: set[str]
    indexed: set[str]


async def read_sets(stores: Stores) -> Sets:
    client: AsyncMongoClient[dict[str, str]] = AsyncMongoClient(
        stores.mongodb_url, serverSelectionTimeoutMS=5000
    )
    async with client, modality_client(stores) as http:
        held = set((await http.get("/instances")).json())
        found = client["orthanc_graphql"]["instances"].find({}, {"_id": 1})
        return Sets(held, {document["_id"] async for document in found})


def running_stores(data_dir: Path) -> Stores:
    running = read_running_stores(data_dir)
    assert running is not None
    return running.stores


def victim(kind: str, server: Served) -> int:
    """Return the process id of the server, or of its child of a kind."""
    pid = server.process.pid
    if kind == "server":
        return pid
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    [found] = [
        int(child)
        for child in children
        if kind in Path(f"/proc/{child}/cmdline").read_text(encoding="utf-8").split("\0")[0]
    ]
    return found


@asynccontextmanager
async def under_load(load: Load) -> AsyncIterator[None]:
    async with asyncio.TaskGroup() as clients:
        for _ in range(_CLIENTS):
            clients.create_task(load.upload_until_over())
        try:
            yield
        finally:
            load.is_over.set()


@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_nothing_acknowledged_is_lost_and_both_stores_agree_within_seconds(
    tmp_path: Path,
) -> None:
    shell = Shell({"DATA_DIR": str(tmp_path), "LOAD_SAMPLES": "false"})
    acknowledged: set[str] = set()
    slowest = 0.0
    numbers = itertools.count()
    async with AsyncExitStack() as servers:
        server = await servers.enter_async_context(served(shell))
        for number in range(ROUNDS):
            kind = KINDS[number % len(KINDS)]
            load = Load(url=server.url, numbers=numbers)
            async with under_load(load):
                await load.wait_for(_ACKNOWLEDGED_BEFORE_A_KILL)
                os.kill(victim(kind, server), signal.SIGKILL)
                if kind == "server":
                    await server.process.wait()
                    server = await servers.enter_async_context(served(shell))
                    load.url = server.url
                # The load goes on until the server works again.
                await load.wait_for(len(load.acknowledged) + 1)
            acknowledged |= load.acknowledged
            began = time.monotonic()
            stores = running_stores(tmp_path)
            await eventually(partial(_agree, stores), within_seconds=_AGREE_SECONDS)
            slowest = max(slowest, time.monotonic() - began)
            sets = await read_sets(stores)
            assert acknowledged <= sets.indexed, f"round {number}: {kind} killed"
            assert sets.held == sets.indexed
    print(f"{ROUNDS} kills, {len(acknowledged)} acknowledged, agreed within {slowest:.1f} s")  # noqa: T201  # the figure of the run on demand


async def _agree(stores: Stores) -> bool:
    sets = await read_sets(stores)
    return sets.held == sets.indexed
