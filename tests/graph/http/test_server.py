"""What the HTTP server lets through to the application."""

import asyncio
import resource
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from graph.http import server as http_server
from graph.http.server import server_config
from services.settings import Settings
from tests.patience import PATIENCE_SECONDS
from tests.servers import run_uvicorn

ENDED = asyncio.Event()
"""An endless answer has stopped."""

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


LARGE_BYTES = 32 * 1024 * 1024
"""More than the buffers of the system take."""


async def large(_request: Request) -> Response:
    """Answers at once, as GraphQL does."""
    return Response(bytes(LARGE_BYTES))


async def socket_that_ends(websocket: WebSocket) -> None:
    await websocket.accept()
    await websocket.close()


async def endless(request: Request) -> StreamingResponse:
    """Answers piece by piece, as archives are; `ended` says when it has stopped."""

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(1024 * 1024)
                await asyncio.sleep(0)
        finally:
            ended.set()

    ended: asyncio.Event = request.app.state.ended
    return StreamingResponse(pieces())


@asynccontextmanager
async def serving(*trusted_proxies: str) -> AsyncIterator[str]:
    """A server that answers who it takes its client for; its address."""
    settings = Settings(_env_file=None, trusted_proxies=list(trusted_proxies), shutdown_seconds=1)
    app = Starlette(
        routes=[
            Route("/", sender, methods=["GET", "POST"]),
            Route("/echo", echo, methods=["POST"]),
            Route("/large", large, methods=["GET"]),
            Route("/endless", endless, methods=["GET"]),
            WebSocketRoute("/socket", socket_that_ends),
        ]
    )
    app.state.ended = ENDED
    ENDED.clear()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with run_uvicorn(server_config(app, settings), listener):
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"


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
        async with asyncio.timeout(PATIENCE_SECONDS):
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
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.2)
    async with serving() as url:
        parts = httpx.URL(url)
        reader, writer = await asyncio.open_connection(parts.host, parts.port)
        writer.write(begun)
        async with asyncio.timeout(20):  # Less than HEAD_SECONDS was.
            answered = await reader.read()
        writer.close()
        assert answered.count(b"HTTP/1.1 200") == begun.count(b"\r\n\r\n")


async def test_a_body_may_take_longer_than_headers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_SECONDS", 0.2)

    async def slow() -> AsyncIterator[bytes]:
        yield b"a"
        await asyncio.sleep(0.5)
        yield b"b"

    async with serving() as url, httpx.AsyncClient(base_url=url) as http:
        assert (await http.post("/", content=slow())).status_code == 200


async def test_websockets_are_not_compressed() -> None:
    """Compressing a large result would keep the event loop from everybody else."""
    offer = "permessage-deflate; client_max_window_bits"
    asked = (
        "GET /socket HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        f"Sec-WebSocket-Extensions: {offer}\r\n\r\n"
    )
    async with serving() as url, asyncio.timeout(PATIENCE_SECONDS):
        address = httpx.URL(url)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(asked.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
    assert answer.startswith(b"HTTP/1.1 101")
    assert b"permessage-deflate" not in answer.lower()


async def exchanged(url: str, *pieces: bytes) -> bytes:
    """Send pieces for as long as they are taken, and return all that is answered."""
    parts = httpx.URL(url)
    reader, writer = await asyncio.open_connection(parts.host, parts.port)
    async with asyncio.timeout(PATIENCE_SECONDS):
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


@asynccontextmanager
async def unread(url: str, path: str) -> AsyncIterator[socket.socket]:
    """Ask for an answer, and read nothing of it."""
    address = httpx.URL(url)
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (address.host, address.port))
        await loop.sock_sendall(client, f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        yield client


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[http_server.HttpLimitsProtocol]:
    """The connections of the server, as they are made."""
    made: list[http_server.HttpLimitsProtocol] = []
    connection_made = http_server.HttpLimitsProtocol.connection_made

    def recording(connection: http_server.HttpLimitsProtocol, transport: asyncio.Transport) -> None:
        made.append(connection)
        connection_made(connection, transport)

    monkeypatch.setattr(http_server.HttpLimitsProtocol, "connection_made", recording)
    return made


async def until_cut(connection: http_server.HttpLimitsProtocol) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while connection in connection.connections:  # noqa: ASYNC110  # uvicorn tells nobody
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("path", ["/large", "/endless"])
async def test_a_client_that_does_not_read_its_answer_is_cut(
    monkeypatch: pytest.MonkeyPatch,
    connections: list[http_server.HttpLimitsProtocol],
    caplog: pytest.LogCaptureFixture,
    path: str,
) -> None:
    monkeypatch.setattr(http_server, "STALLED_SECONDS", 0.3)
    async with serving() as url, unread(url, path):
        while not connections:  # noqa: ASYNC110  # uvicorn tells nobody
            await asyncio.sleep(0.02)
        await until_cut(connections[0])
        if path == "/endless":
            async with asyncio.timeout(PATIENCE_SECONDS):
                await ENDED.wait()
    assert "does not read the answer" in caplog.text


async def test_a_client_that_reads_slowly_is_not_cut_and_one_that_stops_is(
    monkeypatch: pytest.MonkeyPatch,
    connections: list[http_server.HttpLimitsProtocol],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Intervals end when the test says so."""
    monkeypatch.setattr(http_server, "STALLED_SECONDS", 3_600.0)
    loop = asyncio.get_running_loop()
    async with serving() as url, unread(url, "/large") as client:
        # The answer has begun, and what the system takes of it is taken.
        assert await loop.sock_recv(client, 16)
        transport, watch = connections[0].transport, connections[0]._watch
        assert watch is not None
        for _ in range(3):
            begun = transport.get_write_buffer_size()
            async with asyncio.timeout(PATIENCE_SECONDS):
                while transport.get_write_buffer_size() > begun - http_server.STALLED_BYTES:
                    assert await loop.sock_recv(client, 64 * 1024)
            end_interval(watch)
            assert watch.is_watching
            assert "does not read" not in caplog.text
        end_interval(watch)
        await until_cut(connections[0])
    assert "does not read the answer" in caplog.text


def end_interval(watch: http_server._ReadingWatch) -> None:
    """Do what the watch's timer does when an interval is over."""
    assert watch._timer is not None
    watch._timer.cancel()
    watch._end_interval()


async def test_running_out_of_descriptors_is_logged_and_leaves_some(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as url, httpx.AsyncClient(trust_env=False) as http:
        assert (await http.get(url)).is_success
        monkeypatch.setattr(resource, "getrlimit", lambda _: (40, 40))
        with pytest.raises(httpx.TransportError):
            async with httpx.AsyncClient(trust_env=False) as another:
                await another.get(url)
        assert (await http.get(url)).is_success
    [record] = [one for one in caplog.records if "file descriptors" in one.message]
    assert record.levelname == "ERROR"


def test_idle_connections_are_kept_for_longer_than_proxies_keep_theirs() -> None:
    config = server_config(Starlette(), Settings(_env_file=None))
    # nginx's keepalive_timeout of upstreams is 60 s, Caddy's keepalive 2 minutes.
    assert config.timeout_keep_alive > 120
