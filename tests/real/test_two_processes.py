"""Two servers on the same stores: one follows Orthanc, the other takes over when it is killed."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from pymongo import AsyncMongoClient

from services.settings import Settings
from tests.clients import http_client
from tests.real.shell import Served, Shell, served
from tests.real.sync_stage import eventually, instance_bytes, modality_client

COUNTS = {"query": "{ studies { nodes { numberOfSeries numberOfInstances } } }"}


@pytest.fixture
async def modality(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with modality_client(settings) as http:
        yield http


async def test_the_other_server_takes_over_and_nothing_is_missed_or_indexed_twice(
    settings: Settings, tmp_path: Path, modality: httpx.AsyncClient
) -> None:
    async with AsyncExitStack() as stack:
        shells = [Shell.on_stores_of(settings, tmp_path / name) for name in ("one", "other")]
        servers = [await stack.enter_async_context(served(shell)) for shell in shells]
        await eventually(lambda: _one_follows(servers))
        await _send(modality, range(1, 6))
        await eventually(lambda: _all_answer(servers, 5))
        before = await _indexed_at(settings)
        follower, heir = await _in_order(servers)
        follower.process.send_signal(signal.SIGKILL)
        await _send(modality, range(6, 11))
        await eventually(lambda: _all_answer([heir], 10))
        await eventually(lambda: _one_follows([heir]))
        await _send(modality, range(11, 16))
        await eventually(lambda: _all_answer([heir], 15))
        after = await _indexed_at(settings)
    assert len(after) == 15
    assert before.items() <= after.items()


async def _send(modality: httpx.AsyncClient, numbers: range) -> None:
    for number in numbers:
        content = instance_bytes(1, 1 + number % 2, number)
        (await modality.post("/instances", content=content)).raise_for_status()


async def _ask(server: Served, query: dict[str, str] | None = None) -> Any:  # noqa: ANN401  # JSON
    async with http_client(server.url) as http:
        answer = await (http.post("/graphql", json=query) if query else http.get("/api/status"))
    return answer.json()


async def _one_follows(servers: list[Served]) -> bool:
    states = await asyncio.gather(*map(_ask, servers))
    return [state["feed"]["isFollowing"] for state in states].count(True) == 1


async def _in_order(servers: list[Served]) -> list[Served]:
    """Return the one that follows, then the other."""
    states = await asyncio.gather(*map(_ask, servers))
    follows = [state["feed"]["isFollowing"] for state in states]
    return sorted(servers, key=lambda server: not follows[servers.index(server)])


async def _all_answer(servers: list[Served], number_of_instances: int) -> bool:
    expected = [{"numberOfSeries": 2, "numberOfInstances": number_of_instances}]
    answers = [await _ask(server, COUNTS) for server in servers]
    return all(answer["data"]["studies"]["nodes"] == expected for answer in answers)


async def _indexed_at(settings: Settings) -> dict[str, datetime]:
    """Return when each instance was first indexed."""
    assert settings.mongodb_url is not None
    async with AsyncMongoClient[dict[str, Any]](settings.mongodb_url.get_secret_value()) as client:
        found = client[settings.mongodb_database]["instances"].find({})
        return {one["_id"]: one["indexedAt"] async for one in found}
