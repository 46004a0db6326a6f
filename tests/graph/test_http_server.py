"""What the HTTP server lets through to the application."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from graph import prompt_headers
from graph.http_server import server_config
from services.settings import Settings

FORWARDED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}


async def sender(request: Request) -> PlainTextResponse:
    assert request.client is not None
    return PlainTextResponse(f"{request.url.scheme} {request.client.host}")


@asynccontextmanager
async def serving(*trusted_proxies: str) -> AsyncIterator[str]:
    """A server that answers who it takes its client for; its address."""
    settings = Settings(_env_file=None, trusted_proxies=list(trusted_proxies))
    app = Starlette(routes=[Route("/", sender, methods=["GET", "POST"])])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(server_config(app, settings, shutdown_seconds=1))
        task = asyncio.create_task(server._serve([listener]))
        while not (server.started or task.done()):  # noqa: ASYNC110  # uvicorn tells nobody
            await asyncio.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            await task


@pytest.mark.parametrize(
    ("trusted", "seen"),
    [((), "http 127.0.0.1"), (("10.0.0.0/8", "127.0.0.1"), "https 203.0.113.9")],
)
async def test_only_proxies_that_are_named_tell_who_the_client_is(
    monkeypatch: pytest.MonkeyPatch, trusted: tuple[str, ...], seen: str
) -> None:
    # uvicorn's own variable.
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    async with serving(*trusted) as url, httpx.AsyncClient(trust_env=False) as http:
        answer = await http.get(url, headers=FORWARDED)
    assert answer.text == seen
    assert "server" not in answer.headers


@pytest.mark.parametrize(
    "lengths",
    [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 0, 5",
        "Content-Length: +5",
        "Content-Length: ",
        "Content-Length: 99999999999999999999",
        "Transfer-Encoding: xchunked",
    ],
)
async def test_a_request_whose_length_is_in_doubt_is_refused(lengths: str) -> None:
    async with serving() as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", httpx.URL(url).port)
        writer.write(f"POST / HTTP/1.1\r\nHost: a\r\n{lengths}\r\n\r\n0\r\n\r\n".encode())
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer


@pytest.mark.parametrize(
    "begun", [b"", b"POST / HTTP/1.1\r\nHost: localh", b"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HT"]
)
async def test_headers_that_do_not_end_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(prompt_headers, "HEADERS_SECONDS", 0.2)
    async with serving() as url:
        parts = httpx.URL(url)
        reader, writer = await asyncio.open_connection(parts.host, parts.port)
        writer.write(begun)
        async with asyncio.timeout(4):
            answered = await reader.read()
        writer.close()
        assert answered.count(b"HTTP/1.1 200") == begun.count(b"\r\n\r\n")


async def test_a_body_may_take_longer_than_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompt_headers, "HEADERS_SECONDS", 0.2)

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(0.5)
        yield b"b"

    async with serving() as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.post("/", content=slow())).status_code == 200
