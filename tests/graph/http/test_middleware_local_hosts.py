"""A server without credentials: which names it answers to."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.http.middleware import LocalHostMiddleware, hostname_of
from services.auth.authenticator import Authenticator
from tests.graph.problems import problem_of
from tests.tokens import cache_of, made_token, read_cache_of

if TYPE_CHECKING:
    from services.runtime import Runtime


@pytest.fixture
def open_one() -> Authenticator:
    return Authenticator(cache_of())


@pytest.fixture
async def closed_one() -> Authenticator:
    return Authenticator(await read_cache_of(made_token("ann")[0]))


def app_with(authenticator: Authenticator) -> ASGIApp:
    async def greet(_request: Request) -> JSONResponse:
        return JSONResponse("hello")

    routes = [Route("/", greet), Route("/graphql", greet)]
    app = LocalHostMiddleware(Starlette(routes=routes), ["Tablet.lan", "192.168.1.20"])

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"runtime": cast("Runtime", SimpleNamespace(authenticator=authenticator))}
        await app(scope, receive, send)

    return with_state


async def answer(app: ASGIApp, host: str, path: str = "/") -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        return await http.get(path, headers={"Host": host})


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:3000",
        "127.0.0.1:8000",
        "[::1]:8000",
        "LOCALHOST",
        "tablet.LAN:5173",
        "192.168.1.20",
    ],
)
async def test_local_names_reach_an_open_server(open_one: Authenticator, host: str) -> None:
    assert (await answer(app_with(open_one), host)).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
        "pacs.test:444",
        "evil.test:8000",
        "localhost.evil.test",
        "127.0.0.1.evil.test",
        "",
        "x@localhost",
    ],
)
async def test_a_foreign_name_does_not_reach_an_open_server(
    open_one: Authenticator, host: str
) -> None:
    response = await answer(app_with(open_one), host)
    message = (
        "This server has no credentials, so it answers only to the names localhost and 127.0.0.1. "
        "Name other hosts in ALLOWED_HOSTS, or make a token with `orthanc-graphql token create`."
    )
    assert problem_of(response) == (421, "MISDIRECTED_REQUEST", message)
    by_graphql = await answer(app_with(open_one), host, "/graphql")
    assert by_graphql.status_code == 421
    extensions = {"code": "MISDIRECTED_REQUEST", "correlationId": "-"}
    assert by_graphql.json() == {"errors": [{"message": message, "extensions": extensions}]}


async def test_a_foreign_name_opens_no_websocket(open_one: Authenticator) -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "websocket", "path": "/", "headers": [(b"host", b"evil.test")]}
    await app_with(open_one)(scope, receive, send)
    assert [message["type"] for message in sent] == ["websocket.close"]


async def test_any_name_reaches_a_server_with_credentials(closed_one: Authenticator) -> None:
    assert (await answer(app_with(closed_one), "pacs.example.org")).status_code == 200


@pytest.mark.parametrize("header", ["", "a/b", "a?b", "a b", "a\\b", "[", "u@localhost"])
def test_a_host_that_makes_no_sense_has_no_name(header: str) -> None:
    assert hostname_of(header) is None
