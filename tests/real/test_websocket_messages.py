"""Messages that no client of graphql-transport-ws sends: refused by a code, never a fault."""

import asyncio
import json
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from services.embedded.mongod import EmbeddedMongod
from services.frames.signing import generate_key
from services.runtime import open_runtime
from services.settings import Settings
from tests.patience import PATIENCE_SECONDS
from tests.servers import RunningServer, run_server

BAD_REQUEST = 4400
"""Close code of the protocol for a message that it does not know."""

NO_UTF_8 = 1007
"""RFC 6455, 7.4.1."""

INIT = '{"type": "connection_init"}'


@pytest.fixture(scope="module")
async def server(
    mongodb: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningServer]:
    """A server without Orthanc."""
    settings = Settings(
        _env_file=None,
        data_dir=tmp_path_factory.mktemp("messages"),
        mongodb_url=SecretStr(mongodb.url),
        mongodb_database=f"test_{secrets.token_hex(6)}",
        enable_pacs_integration=False,
        frame_url_keys=SecretStr(generate_key()),
    )
    async with open_runtime(settings) as runtime, run_server(settings, runtime) as running:
        yield running
        await runtime.database.client.drop_database(settings.mongodb_database)


def subscribing(**payload: object) -> str:
    return json.dumps({"id": "1", "type": "subscribe", "payload": payload})


async def closed_by(server: RunningServer, *messages: str | bytes) -> tuple[int, str]:
    """Send messages; answers code and reason of the end."""
    protocols: Any = ["graphql-transport-ws"]
    url = server.url.replace("http", "ws") + "/graphql"
    async with (
        connect(url, subprotocols=protocols, proxy=None) as opened,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        for message in messages:
            await opened.send(message)
        with suppress(ConnectionClosed):
            async for _ in opened:
                pass
    assert opened.close_code is not None
    return opened.close_code, opened.close_reason or ""


@pytest.mark.parametrize(
    "message",
    [
        "",
        "no JSON",
        b"{}",
        "[1]",
        "null",
        "1",
        '"type"',
        "[" * 30_000,
        '{"a":' * 5_000 + "1" + "}" * 5_000,
        "{}",
        '{"type": ["ping"]}',
        json.dumps({"type": "é" * 1_000}),
        '{"type": "\\ud800"}',
        '{"type": "connection_init", "payload": []}',
    ],
    ids=lambda message: str(message[:20]),
)
async def test_a_message_that_is_none_ends_the_connection(
    server: RunningServer, caplog: pytest.LogCaptureFixture, message: str | bytes
) -> None:
    assert (await closed_by(server, message))[0] == BAD_REQUEST
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_text_that_is_no_utf_8_ends_the_connection_without_an_error_in_the_log(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    protocols: Any = ["graphql-transport-ws"]
    url = server.url.replace("http", "ws") + "/graphql"
    async with (
        connect(url, subprotocols=protocols, proxy=None) as opened,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        await opened.send(b'{"type": "\xff"}', text=True)
        with pytest.raises(ConnectionClosed):
            await opened.recv()
    assert opened.close_code == NO_UTF_8
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    "message",
    [
        '{"type": "subscribe"}',
        '{"type": "subscribe", "id": ["1"], "payload": {"query": "{ a }"}}',
        '{"type": "subscribe", "id": "1", "payload": "query"}',
        '{"type": "complete", "id": {}}',
        subscribing(),
        subscribing(query=5),
        subscribing(query=["{ a }"]),
        subscribing(query="{ a }", variables=[1]),
        subscribing(query="{ a }", operationName={}),
    ],
)
async def test_an_operation_that_is_none_ends_the_connection(
    server: RunningServer, caplog: pytest.LogCaptureFixture, message: str
) -> None:
    assert (await closed_by(server, INIT, message))[0] == BAD_REQUEST
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_an_operation_whose_id_is_taken_ends_the_connection(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    query = "subscription { studyEvents { kind } }"
    message = json.dumps({"id": "i" * 1_000, "type": "subscribe", "payload": {"query": query}})
    code, reason = await closed_by(server, INIT, message, message)
    assert (code, reason[:16], len(reason)) == (4409, "Subscriber for i", 123)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("{ studies(first: 100000) { nodes { id series(first: 100) { id } } } }", "LIMIT_EXCEEDED"),
        ("{" * 2_000, "LIMIT_EXCEEDED"),
        ("{" + "a " * 3_000 + "}", "LIMIT_EXCEEDED"),
        ("{ nowhere }", "GRAPHQL_VALIDATION_FAILED"),
    ],
)
async def test_an_operation_that_is_refused_says_why(
    server: RunningServer, query: str, code: str
) -> None:
    protocols: Any = ["graphql-transport-ws"]
    url = server.url.replace("http", "ws") + "/graphql"
    async with (
        connect(url, subprotocols=protocols, proxy=None) as opened,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        await opened.send(INIT)
        await opened.recv()
        await opened.send(subscribing(query=query))
        answer = json.loads(await opened.recv())
    asked = await server.http.post("/graphql", json={"query": query})
    assert answer["type"] in {"error", "next"}
    errors = answer["payload"] if answer["type"] == "error" else answer["payload"]["errors"]
    assert errors == asked.json()["errors"]
    assert [error["extensions"]["code"] for error in errors] == [code]


@asynccontextmanager
async def acknowledged(server: RunningServer) -> AsyncIterator[ClientConnection]:
    """Open a connection that takes operations."""
    protocols: Any = ["graphql-transport-ws"]
    url = server.url.replace("http", "ws") + "/graphql"
    async with (
        connect(url, subprotocols=protocols, proxy=None) as opened,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        await opened.send(INIT)
        await opened.recv()
        yield opened


async def answers_to(server: RunningServer, *messages: str) -> list[Any]:
    """Send messages; answers as many after the first, each with its `payload`."""
    async with acknowledged(server) as opened:
        for message in messages:
            await opened.send(message)
        return [json.loads(await opened.recv()) for _ in messages]


async def test_an_operation_of_no_such_name_is_refused_as_over_http(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    payload = {"query": "query A { __typename }", "operationName": "B"}
    [refused] = await answers_to(server, subscribing(**payload))
    asked = await server.http.post("/graphql", json=payload)
    assert (refused["type"], refused["payload"]) == ("error", asked.json()["errors"])
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_an_operation_that_is_no_graphql_leaves_the_others_alone(
    server: RunningServer, caplog: pytest.LogCaptureFixture
) -> None:
    after = {"id": "2", "type": "subscribe", "payload": {"query": "{ __typename }"}}
    refused, answered = await answers_to(server, subscribing(query="{ server {"), json.dumps(after))
    assert (refused["id"], refused["type"]) == ("1", "error")
    assert [error["extensions"] for error in refused["payload"]] == [
        {"code": "GRAPHQL_PARSE_FAILED"}
    ]
    assert answered == {"id": "2", "type": "next", "payload": {"data": {"__typename": "Query"}}}
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


async def test_an_operation_too_many_is_refused_with_a_code(server: RunningServer) -> None:
    query = "subscription { studyEvents { kind } }"
    messages = [
        json.dumps({"id": str(n), "type": "subscribe", "payload": {"query": query}})
        for n in range(101)
    ]
    async with acknowledged(server) as opened:
        for message in messages:
            await opened.send(message)
        answers = [json.loads(await opened.recv())]
        while answers[-1]["id"] != "100":
            answers.append(json.loads(await opened.recv()))
    assert answers[-1] == {
        "id": "100",
        "type": "error",
        "payload": [
            {
                "message": "A WebSocket may have 100 operations at once.",
                "extensions": {"code": "LIMIT_EXCEEDED"},
            }
        ],
    }


async def test_half_a_surrogate_pair_is_refused(server: RunningServer) -> None:
    query = "query ($t: String) { studies(filter: {patientID: $t}) { nodes { id } } }"
    body = json.dumps({"query": query, "variables": {"t": "\ud800"}})
    headers = {"Content-Type": "application/json"}
    answer = await server.http.post("/graphql", content=body, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["errors"][0]["message"] == "The body of the request is not valid JSON."
    message = subscribing(query=query, variables={"t": "\ud800"})
    assert (await closed_by(server, INIT, message))[0] == BAD_REQUEST


@pytest.mark.parametrize(
    ("name", "answered"), [(None, None), ("B", {"b": {"__typename": "Server"}})]
)
async def test_which_of_two_operations_runs_must_be_said(
    server: RunningServer, name: str | None, answered: object
) -> None:
    query = "query A { a: server { __typename } } query B { b: server { __typename } }"
    body = {"query": query, "operationName": name}
    answer = (await server.http.post("/graphql", json=body)).json()
    assert answer.get("data") == answered
    if name is None:
        assert "operationName" in answer["errors"][0]["message"]
