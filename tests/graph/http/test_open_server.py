"""A server without credentials: where it listens, and to whom it answers."""

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from graph.http.middleware import (
    LocalHostMiddleware,
    OpenServerRefused,
    hostname_of,
    refuse_open_server,
)
from services.auth.authenticator import Authenticator
from services.auth.roles import Role
from services.auth.tokens import TokenFile, changed_tokens, issue_token

if TYPE_CHECKING:
    from services.runtime import Runtime


@pytest.fixture
def open_one(tmp_path: Path) -> Authenticator:
    return Authenticator(TokenFile(tmp_path / "none.json", is_required=False))


@pytest.fixture
def closed_one(tmp_path: Path) -> Authenticator:
    with changed_tokens(tmp_path / "tokens.json") as change:
        change.tokens, _ = issue_token((), name="ann", role=Role.UPLOADER, now=datetime.now(UTC))
    return Authenticator(TokenFile(tmp_path / "tokens.json", is_required=True))


def app_with(authenticator: Authenticator, public_url: str | None = None) -> ASGIApp:
    async def greet(_request: Request) -> JSONResponse:
        return JSONResponse("hello")

    app = LocalHostMiddleware(Starlette(routes=[Route("/", greet)]), public_url=public_url)

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"runtime": cast("Runtime", SimpleNamespace(authenticator=authenticator))}
        await app(scope, receive, send)

    return with_state


async def answer(app: ASGIApp, host: str) -> httpx.Response:
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as http:
        return await http.get("/", headers={"Host": host})


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "pacs.example.org", ""])  # noqa: S104  # refused is the point
def test_an_open_server_is_refused_beyond_loopback(open_one: Authenticator, host: str) -> None:
    with pytest.raises(OpenServerRefused, match="orthanc-graphql token create"):
        refuse_open_server(host, open_one)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", "::1", "localhost"])
def test_an_open_server_may_listen_on_loopback(open_one: Authenticator, host: str) -> None:
    refuse_open_server(host, open_one)


def test_an_open_server_is_refused_to_pages_of_every_origin(open_one: Authenticator) -> None:
    with pytest.raises(OpenServerRefused, match="CORS_ALLOWED_ORIGINS"):
        refuse_open_server("127.0.0.1", open_one, origins=["https://a.example", "*"])
    refuse_open_server("127.0.0.1", open_one, origins=["https://a.example"])


def test_a_server_with_credentials_may_serve_pages_of_every_origin(
    closed_one: Authenticator,
) -> None:
    refuse_open_server("127.0.0.1", closed_one, origins=["*"])


def test_a_server_with_credentials_may_listen_anywhere(closed_one: Authenticator) -> None:
    refuse_open_server("0.0.0.0", closed_one)  # noqa: S104  # allowed is the point


@pytest.mark.parametrize(
    "host",
    ["localhost", "localhost:3000", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST", "pacs.test:444"],
)
async def test_local_names_and_the_public_one_reach_an_open_server(
    open_one: Authenticator, host: str
) -> None:
    app = app_with(open_one, "https://pacs.test/x")
    assert (await answer(app, host)).status_code == 200


@pytest.mark.parametrize(
    "host",
    [
        "evil.test",
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
    assert response.status_code == 421
    assert response.json()["errors"][0]["extensions"] == {"code": "MISDIRECTED_REQUEST"}


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
