"""`serve --workers`: several processes on one port, replaced without a failed request."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from services.settings import Settings
from tests.patience import PATIENCE_SECONDS
from tests.real.shell import Served, Shell, served
from tests.real.steady_load import steady
from tests.real.sync_stage import eventually

QUERY = {"query": "{ studies { totalCount } }"}
QUIET = ("--log-level", "warning")
"""Nobody reads the log while the server runs."""


def workers_of(parent: int) -> set[int]:
    """Return the processes that a server has started; external stores are not among them."""
    text = Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii")
    return {int(child) for child in text.split()}


@dataclass(slots=True)
class Clients:
    """Ask over a connection that is kept and over new ones, in turns."""

    url: str
    kept: httpx.AsyncClient

    async def ask(self, number: int) -> int | None:
        """Return the status, None when the connection broke."""
        try:
            if number % 2:
                return (await self.kept.post("/graphql", json=QUERY)).status_code
            async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS) as http:
                return (await http.post(f"{self.url}/graphql", json=QUERY)).status_code
        except httpx.TransportError:
            return None


@pytest.fixture
def metrics_port() -> int:
    """Two free ports that follow each other; answers the first."""
    for _ in range(100):
        with socket.create_server(("127.0.0.1", 0)) as first:
            port: int = first.getsockname()[1]
            try:
                socket.create_server(("127.0.0.1", port + 1)).close()
            except OSError:
                continue
            return port
    pytest.fail("no two ports are free")


@pytest.fixture
async def server(settings: Settings, tmp_path: Path, metrics_port: int) -> AsyncIterator[Served]:
    shell = Shell.on_stores_of(settings, tmp_path / "data")
    shell.environment["METRICS_PORT"] = str(metrics_port)
    async with served(shell, "--workers", "2", *QUIET) as running:
        yield running


@pytest.fixture
async def clients(server: Served) -> AsyncIterator[Clients]:
    async with httpx.AsyncClient(
        base_url=server.url, timeout=PATIENCE_SECONDS, trust_env=False
    ) as kept:
        yield Clients(server.url, kept)


async def metrics_of(port: int) -> dict[str, float]:
    """What one worker says of itself."""
    async with httpx.AsyncClient(trust_env=False, timeout=PATIENCE_SECONDS) as http:
        text = (await http.get(f"http://127.0.0.1:{port}/metrics")).text
    lines = (line.rpartition(" ") for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, _, value in lines}


async def test_workers_are_replaced_without_a_failed_request_and_after_a_crash(
    server: Served, clients: Clients, metrics_port: int
) -> None:
    first = workers_of(server.process.pid)
    assert len(first) == 2

    async def one_follows() -> bool:
        workers = [await metrics_of(port) for port in (metrics_port, metrics_port + 1)]
        assert workers[0]["process_start_time_seconds"] != workers[1]["process_start_time_seconds"]
        return sum(one["orthanc_graphql_feed_is_following"] for one in workers) == 1

    await eventually(one_follows)
    async with steady(5, clients.ask) as answers:
        server.process.send_signal(signal.SIGHUP)
        await eventually(lambda: _are_others(server, first))
    assert len(answers) > 10
    assert set(answers) == {200}

    await eventually(one_follows)
    second = workers_of(server.process.pid)
    async with steady(5, clients.ask) as answers:
        await eventually(lambda: _are_more(answers, 5))
        os.kill(min(second), signal.SIGKILL)
        await eventually(lambda: _are_others(server, {min(second)}))
        seen = len(answers)
        await eventually(lambda: _are_more(answers, seen + 5))
    # What the other worker had is served; what was on its way to this one waits for the next.
    assert answers.count(None) <= 2
    assert set(answers) <= {200, None}
    assert max(second) in workers_of(server.process.pid)

    third = workers_of(server.process.pid)
    server.process.send_signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE_SECONDS):
        assert await server.process.wait() == 0
    assert not await asyncio.to_thread(_any_exists, third)


async def _are_others(server: Served, before: set[int]) -> bool:
    now = await asyncio.to_thread(workers_of, server.process.pid)
    return len(now) == 2 and not now & before


def _any_exists(pids: set[int]) -> bool:
    return any(Path(f"/proc/{pid}").exists() for pid in pids)


async def _are_more(answers: list[int | None], than: int) -> bool:
    return len(answers) > than
