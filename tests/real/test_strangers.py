"""Who has no credential gets nothing parsed, holds nothing for long, and keeps nobody waiting."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, suppress
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import CloseCode

from graph.http import endpoint
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.runtime import Runtime
from services.settings import Settings
from tests.databases import lent_database
from tests.patience import PATIENCE_SECONDS
from tests.real.bystander import Guarded, nobody_waits, serve_with_tokens
from tests.server_process import Served
from tests.servers import RunningServer, run_server, settings_on

FORBIDDEN = 4403
INIT_TIMEOUT = 4408
MESSAGE_TOO_BIG = 1009

INTROSPECTION = (
    "{"
    + " ".join(f"a{n}:__schema{{...S}}" for n in range(20))
    + "}fragment S on __Schema{types{name fields{name args{name type{name}} type{name kind}}}}"
)


@pytest.fixture(scope="module")
async def guarded(
    mongodb: EmbeddedMongod, orthanc: EmbeddedOrthanc, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Guarded]:
    """One server for all tests that leave nothing behind."""
    async with lent_database(mongodb) as name:
        folder = tmp_path_factory.mktemp("strangers")
        settings = settings_on(mongodb, orthanc, folder, mongodb_database=name)
        async with serve_with_tokens(settings) as running:
            yield running


@pytest.fixture
async def crowded(settings: Settings) -> AsyncIterator[Guarded]:
    """A server that has as many WebSockets as it allows, and may take a moment to end them."""
    async with serve_with_tokens(settings, WEBSOCKETS_PER_CLIENT="20") as running:
        yield running


def opened(server: Served | RunningServer, compression: str | None = "deflate") -> connect:
    protocols: Any = ["graphql-transport-ws"]
    url = server.url.replace("http", "ws") + "/graphql"
    return connect(
        url, subprotocols=protocols, proxy=None, close_timeout=1, compression=compression
    )


def initialised(token: str | None) -> str:
    payload = {} if token is None else {"Authorization": f"Bearer {token}"}
    return json.dumps({"type": "connection_init", "payload": payload})


async def close_code(connection: ClientConnection) -> int | None:
    """Read to the end; answers its code."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        with suppress(ConnectionClosed):
            while True:
                await connection.recv()
    return connection.close_code


async def test_nothing_is_parsed_for_who_is_not_known(guarded: Guarded) -> None:
    async with guarded.client(None) as http:
        for query in ("{ __typename }", "{", INTROSPECTION):
            answer = await http.get("/graphql", params={"query": query})
            assert answer.status_code == 401
            assert [e["extensions"]["code"] for e in answer.json()["errors"]] == ["UNAUTHENTICATED"]


async def test_graphiql_opens_for_everybody_and_answers_only_with_a_token(
    guarded: Guarded,
) -> None:
    # A browser can't send the token when it opens the page: it is entered there.
    async with guarded.client(None) as http:
        for site in ("none", "cross-site"):
            headers = {"Accept": "text/html,*/*;q=0.8", "Sec-Fetch-Site": site}
            page = await http.get("/graphql", headers=headers)
            assert (page.status_code, page.headers["content-type"]) == (
                200,
                "text/html; charset=utf-8",
            )
            assert 'id="token"' in page.text
        answer = await http.get("/graphql", headers={"Accept": "application/json"})
        assert answer.status_code == 401
        answer = await http.post("/graphql", json={"query": INTROSPECTION})
        assert answer.status_code == 401


async def test_an_image_of_another_site_can_not_ask(guarded: Guarded) -> None:
    parameters = {"query": "{ __typename }"}
    async with guarded.client(guarded.attacker) as http:
        for site in ("cross-site", "same-site"):
            headers = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "no-cors", "Accept": "image/png"}
            answer = await http.get("/graphql", params=parameters, headers=headers)
            assert answer.status_code == 403
            assert answer.json()["errors"][0]["extensions"]["code"] == "FORBIDDEN"
        for site in ("same-origin", "none"):
            headers = {"Sec-Fetch-Site": site}
            answer = await http.get("/graphql", params=parameters, headers=headers)
            assert answer.json() == {"data": {"__typename": "Query"}}


@pytest.mark.parametrize("token", [None, "forged"])
async def test_a_websocket_whose_init_names_nobody_is_closed(
    guarded: Guarded, token: str | None
) -> None:
    async with opened(guarded.server) as stranger:
        await stranger.send(initialised(token))
        subscribe = {"id": "1", "type": "subscribe", "payload": {"query": INTROSPECTION}}
        await stranger.send(json.dumps(subscribe))
        assert await close_code(stranger) == FORBIDDEN


async def test_a_websocket_that_does_not_begin_is_closed(
    settings: Settings, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint, "_INIT_SECONDS", 0.5)
    async with run_server(settings, runtime) as server, opened(server) as silent:
        assert await close_code(silent) == INIT_TIMEOUT


@pytest.mark.parametrize("compression", [None, "deflate"])
async def test_a_stranger_may_not_send_large_messages_and_a_known_client_may(
    guarded: Guarded, compression: str | None
) -> None:
    async def unfinished() -> AsyncIterator[str]:
        for _ in range(100):
            yield "x" * 8_000
        await asyncio.Event().wait()

    async with opened(guarded.server, compression) as stranger:
        sending = asyncio.create_task(stranger.send(unfinished()))
        # A client that goes on sending may get a reset instead of the reason.
        assert await close_code(stranger) in {MESSAGE_TOO_BIG, CloseCode.ABNORMAL_CLOSURE}
        sending.cancel()
        with suppress(asyncio.CancelledError, ConnectionClosed):
            await sending
    async with opened(guarded.server) as known:
        await known.send(initialised(guarded.attacker))
        assert json.loads(await known.recv())["type"] == "connection_ack"
        payload = {"query": "{ __typename }", "variables": {"x": "x" * 900_000}}
        await known.send(json.dumps({"id": "1", "type": "subscribe", "payload": payload}))
        assert json.loads(await known.recv())["payload"] == {"data": {"__typename": "Query"}}


async def test_a_client_has_so_many_websockets_and_gets_them_back(crowded: Guarded) -> None:
    async with AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(opened(crowded.server))
        with pytest.raises(InvalidStatus) as refused:
            await stack.enter_async_context(opened(crowded.server))
        assert refused.value.response.status_code == 429
        body = json.loads(refused.value.response.body)
        assert body["errors"][0]["extensions"]["code"] == "TOO_MANY_REQUESTS"
    async with opened(crowded.server) as again:
        await again.send(initialised(crowded.attacker))
        assert json.loads(await again.recv())["type"] == "connection_ack"


async def test_strangers_keep_nobody_waiting(crowded: Guarded) -> None:
    async def ask() -> None:
        async with crowded.client(None) as http:
            for _ in range(100):
                await http.get("/graphql", params={"query": INTROSPECTION})

    async def connect_idly() -> None:
        with suppress(InvalidStatus, ConnectionClosed, OSError):
            async with opened(crowded.server) as idle:
                await idle.send(["x" * 16_000, "x" * 16_000])
                await idle.wait_closed()

    async def crowd(_attempt: int) -> None:
        async with asyncio.TaskGroup() as strangers:
            for _ in range(3):
                strangers.create_task(ask())
            for _ in range(300):
                strangers.create_task(connect_idly())

    await nobody_waits(crowded, crowd, most_mebibytes=100)
