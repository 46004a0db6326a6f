"""What the HTTP server lets through to the application."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from graph.http import server as bounded_heads
from graph.http.server import server_config
from services.settings import Settings

FORWARDED = {"X-Forwarded-For": "203.0.113.9", "X-Forwarded-Proto": "https"}


async def sender(request: Request) -> PlainTextResponse:
    assert request.client is not None
    return PlainTextResponse(f"{request.url.scheme} {request.client.host}")


async def echo(request: Request) -> PlainTextResponse:
    """Answers the body and a header, both read when the whole request is there."""
    body = await request.body()
    return PlainTextResponse(
        f"{body.decode()}/{request.headers.get('x-late')}", headers={"Connection": "close"}
    )


@asynccontextmanager
async def serving(*trusted_proxies: str) -> AsyncIterator[str]:
    """A server that answers who it takes its client for; its address."""
    settings = Settings(_env_file=None, trusted_proxies=list(trusted_proxies))
    app = Starlette(
        routes=[
            Route("/", sender, methods=["GET", "POST"]),
            Route("/echo", echo, methods=["POST"]),
        ]
    )
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
    monkeypatch.setattr(bounded_heads, "HEAD_SECONDS", 0.2)
    async with serving() as url:
        parts = httpx.URL(url)
        reader, writer = await asyncio.open_connection(parts.host, parts.port)
        writer.write(begun)
        async with asyncio.timeout(4):
            answered = await reader.read()
        writer.close()
        assert answered.count(b"HTTP/1.1 200") == begun.count(b"\r\n\r\n")


async def test_a_body_may_take_longer_than_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded_heads, "HEAD_SECONDS", 0.2)

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(0.5)
        yield b"b"

    async with serving() as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.post("/", content=slow())).status_code == 200


async def exchanged(url: str, *pieces: bytes) -> bytes:
    """Send pieces for as long as they are taken, and return all that is answered."""
    parts = httpx.URL(url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    async with asyncio.timeout(10):
        answering = asyncio.create_task(reader.read())
        try:
            with suppress(ConnectionError):
                for piece in pieces:
                    writer.write(piece)
                    await writer.drain()
            return await answering
        except ConnectionError:
            return b""
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@pytest.mark.parametrize(
    "fields",
    [
        [b"a: b\r\n" * 101, b"\r\n"],
        [b"a: " + b"b" * 70_000 + b"\r\n\r\n"],
        [b"a: " + b"b" * 9_000 + b"\r\n"] * 9,
        [b"a: ", *[b"b" * 10_000] * 100],
        [b"a" * 10_000] * 100,
    ],
    ids=["many", "long", "together", "endless value", "endless name"],
)
async def test_headers_that_are_too_large_are_refused(fields: list[bytes]) -> None:
    async with serving() as url:
        answer = await exchanged(url, b"GET / HTTP/1.1\r\nHost: a\r\n", *fields)
        assert answer.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
        assert answer.count(b"HTTP/1.1") == 1
        assert (await exchanged(url, *whole())).startswith(b"HTTP/1.1 200")


def whole(*fields: bytes) -> list[bytes]:
    return [b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n", *fields, b"\r\n"]


async def test_headers_of_a_usual_size_pass() -> None:
    async with serving() as url:
        answer = await exchanged(
            url, *whole(b"Authorization: Bearer " + b"t" * 30_000 + b"\r\n", b"a: b\r\n" * 90)
        )
    assert answer.startswith(b"HTTP/1.1 200")


CHUNKED = b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n"


@pytest.mark.parametrize(
    "trailers",
    [[b"a: b\r\n" * 50] * 2_000, [b"a: ", *[b"b" * 10_000] * 1_000]],
    ids=["many", "endless"],
)
async def test_trailers_without_end_are_cut(trailers: list[bytes]) -> None:
    async with serving() as url:
        assert b"200 OK" not in await exchanged(url, CHUNKED, *trailers)


async def test_trailers_are_no_headers() -> None:
    async with serving() as url:
        answer = await exchanged(url, CHUNKED, b"X-Late: yes\r\nConnection: close\r\n\r\n", b"")
    assert answer.endswith(b"abc/None")


async def test_a_large_body_in_one_piece_passes() -> None:
    async with serving() as url, httpx.AsyncClient(base_url=url) as http:
        answer = await http.post("/echo", content=b"x" * 3_000_000)
    assert answer.text == "x" * 3_000_000 + "/None"
