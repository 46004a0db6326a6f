"""Subscriptions as server-sent events on real stores."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.auth.roles import Role
from services.auth.tokens import TokenStore
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from tests.patience import PATIENCE_SECONDS
from tests.real.dicomweb_stage import slices, store, uid
from tests.real.sync_stage import eventually
from tests.servers import RunningServer, run_server
from tests.tokens import give_tokens

WATCH = "subscription Watch { studyEvents { kind studyInstanceUID study { id } } }"
EVENTS = "text/event-stream"
# What urql sends with every operation.
EVERYTHING = "application/graphql-response+json, application/json, text/event-stream"


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    manifest = tmp_path / "documents.json"
    manifest.write_text(json.dumps({"watch": WATCH}))
    given = {"websockets_per_client": 2, "trusted_documents_file": manifest}
    return settings.model_copy(update=given)


@pytest.fixture
def tokens(settings: Settings) -> dict[str, str]:
    return give_tokens(settings, eve=Role.VIEWER)


@pytest.fixture
async def runtime(settings: Settings, tokens: dict[str, str]) -> AsyncIterator[Runtime]:
    assert tokens
    async with open_runtime(settings) as opened:
        yield opened
        await opened.database.client.drop_database(settings.mongodb_database)


@pytest.fixture
async def server(settings: Settings, runtime: Runtime) -> AsyncIterator[RunningServer]:
    async with run_server(settings, runtime) as running:
        yield running


@asynccontextmanager
async def watching(
    server: RunningServer, token: str, accept: str = EVENTS, **operation: object
) -> AsyncIterator[tuple[httpx.Response, AsyncIterator[tuple[str, Any]]]]:
    async with server.http.stream(
        "POST",
        "/graphql",
        json=operation or {"query": WATCH},
        headers={"Authorization": f"Bearer {token}", "Accept": accept},
    ) as response:
        yield response, _events(response)


async def _events(response: httpx.Response) -> AsyncIterator[tuple[str, Any]]:
    name = ""
    async for line in response.aiter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: ") and line != "data: ":
            yield name, json.loads(line.removeprefix("data: "))
        elif line.startswith("data:"):
            yield name, None


async def is_watched(server: RunningServer) -> None:
    async def is_watching() -> bool:
        return server.runtime.study_events.is_watching

    await eventually(is_watching)
    # The listener is there when the stream of MongoDB is open.
    await server.runtime.study_events._stream._is_open.wait()


@pytest.mark.parametrize(
    ("accept", "operation"),
    [
        (EVENTS, {"query": WATCH}),
        (EVERYTHING, {"query": WATCH}),
        (EVENTS, {"documentId": "watch"}),
    ],
)
async def test_events_come_as_they_happen(
    server: RunningServer, tokens: dict[str, str], accept: str, operation: dict[str, object]
) -> None:
    async with watching(server, tokens["eve"], accept, **operation) as (response, events):
        assert response.status_code == 200
        assert response.headers["content-type"].startswith(EVENTS)
        assert response.headers["cache-control"] == "no-store, no-transform"
        assert response.headers["x-accel-buffering"] == "no"
        assert "content-encoding" not in response.headers
        await is_watched(server)
        await store(server, slices("P1", 1))
        async with asyncio.timeout(PATIENCE_SECONDS):
            name, event = await anext(events)
    assert name == "next"
    assert event["data"]["studyEvents"]["studyInstanceUID"] == uid("P1")

    async def is_over() -> bool:
        return not server.runtime.study_events.is_watching

    # The client is gone, and with it the listener.
    await eventually(is_over)

    async def is_recorded() -> bool:
        searched = {"searched": "studyEvents", "principal": "eve"}
        return await server.runtime.database["audit"].count_documents(searched) == 1

    await eventually(is_recorded)


async def test_queries_of_clients_that_accept_everything_are_answered_in_json(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    headers = {"Authorization": f"Bearer {tokens['eve']}", "Accept": EVERYTHING}
    response = await server.http.post("/graphql", json={"query": "{ __typename }"}, headers=headers)
    assert response.headers["content-type"] == "application/graphql-response+json"
    assert response.json() == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize("query", ["subscription { nothing }", "{ __typename }"])
async def test_what_is_no_subscription_is_one_event_with_the_reason(
    server: RunningServer, tokens: dict[str, str], query: str
) -> None:
    async with watching(server, tokens["eve"], query=query) as (response, events):
        assert response.status_code == 200
        found = [event async for event in events]
    assert [name for name, _ in found] == ["next", "complete"]
    assert len(found[0][1]["errors"]) == 1
    assert "data" not in found[0][1]


async def test_callers_without_a_token_get_no_stream(server: RunningServer) -> None:
    async with watching(server, "ogql_" + "x" * 43) as (response, _):
        assert response.status_code == 401
        await response.aread()
        assert response.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


async def test_a_client_has_so_many_streams_and_then_others(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    async with (
        watching(server, tokens["eve"]),
        watching(server, tokens["eve"]),
        watching(server, tokens["eve"]) as (response, _),
    ):
        assert response.status_code == 429
    # Those that have ended count no more.

    async def is_served() -> bool:
        async with watching(server, tokens["eve"]) as (response, _):
            return response.status_code == 200

    await eventually(is_served)


async def test_a_revoked_token_gets_no_further_event(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    async with watching(server, tokens["eve"]) as (_, events):
        await is_watched(server)
        runtime = server.runtime
        await TokenStore(runtime.database).revoke("eve", now=datetime.now(UTC))

        async def is_revoked() -> bool:
            return await runtime.authenticator.authenticate(f"Bearer {tokens['eve']}") is None

        await eventually(is_revoked)
        await store(server, slices("P1", 1))
        async with asyncio.timeout(PATIENCE_SECONDS):
            name, event = await anext(events)
    assert name == "next"
    assert event["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"
