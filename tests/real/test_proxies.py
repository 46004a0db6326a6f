"""The proxies of `deploy/` in front of two processes, over TLS."""

import asyncio
import shutil
import socket
import ssl
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket
from websockets.asyncio.client import connect

from tests.deployment import (
    Certificate,
    caddy_configuration,
    haproxy_configuration,
    make_certificate,
    nginx_configuration,
)
from tests.patience import PATIENCE_SECONDS

INSTANCES = [f"{number:08x}-00000000-00000000-00000000-00000000" for number in range(12)]


@dataclass(slots=True)
class Process:
    """What stands for a process of the server; says what reached it.

    Attributes:
        first_bytes: Set when a part of an upload has come.
    """

    port: int
    paths: list[str] = field(default_factory=list)
    first_bytes: asyncio.Event = field(default_factory=asyncio.Event)

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/readyz", self.health),
                Route("/graphql", self.upload, methods=["POST"]),
                WebSocketRoute("/graphql", self.websocket),
                Route("/{path:path}", self.answer),
            ]
        )

    async def health(self, _: Request) -> Response:
        return Response()

    async def answer(self, request: Request) -> JSONResponse:
        self.paths.append(request.url.path)
        return JSONResponse(dict(request.headers))

    async def upload(self, request: Request) -> JSONResponse:
        size = 0
        async for chunk in request.stream():
            size += len(chunk)
            self.first_bytes.set()
        return JSONResponse(size)

    async def websocket(self, websocket: WebSocket) -> None:
        await websocket.accept("graphql-transport-ws")
        await websocket.send_text(await websocket.receive_text())
        await websocket.close()


@asynccontextmanager
async def run_process() -> AsyncIterator[Process]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        process = Process(listener.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(process.app(), log_level="error"))
        task = asyncio.create_task(server._serve([listener]))
        try:
            yield process
        finally:
            server.should_exit = True
            await task


@dataclass(frozen=True, slots=True)
class Proxy:
    """A running proxy."""

    url: str
    http: httpx.AsyncClient
    trust: ssl.SSLContext
    processes: tuple[Process, Process]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


Configure = Callable[..., Path]

PROXIES: dict[str, tuple[Configure, tuple[str, ...]]] = {
    "nginx": (nginx_configuration, ("-c",)),
    "haproxy": (haproxy_configuration, ("-db", "-f")),
    "caddy": (caddy_configuration, ("run", "--adapter", "caddyfile", "--config")),
}


@pytest.fixture(params=PROXIES)
async def proxy(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Proxy]:
    executable = shutil.which(request.param, path="/usr/sbin:/usr/bin:/usr/local/bin")
    if executable is None:
        pytest.skip(f"{request.param} is not installed")
    configure, arguments = PROXIES[request.param]
    certificate = make_certificate(tmp_path)
    trust = ssl.create_default_context(cafile=str(certificate.chain))
    async with AsyncExitStack() as stack:
        first, second = [await stack.enter_async_context(run_process()) for _ in range(2)]
        port = free_port()
        path = configured(configure, tmp_path, certificate, port, (first, second))
        running = await asyncio.create_subprocess_exec(
            executable, *arguments, path, stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE,
            env={"HOME": str(tmp_path), "XDG_DATA_HOME": str(tmp_path), "PATH": "/usr/bin"},
        )  # fmt: skip
        said = asyncio.create_task(running.communicate())
        try:
            url = f"https://127.0.0.1:{port}"
            http = await stack.enter_async_context(
                httpx.AsyncClient(base_url=url, verify=trust, trust_env=False, timeout=60)
            )
            async with asyncio.timeout(PATIENCE_SECONDS):
                await both_serve(http, said)
            yield Proxy(url, http, trust, (first, second))
        finally:
            if running.returncode is None:
                running.terminate()
            await said


def configured(
    configure: Configure,
    folder: Path,
    certificate: Certificate,
    port: int,
    processes: tuple[Process, Process],
) -> Path:
    ports = tuple(process.port for process in processes)
    return configure(folder, certificate, port=port, processes=ports)


async def both_serve(http: httpx.AsyncClient, said: "asyncio.Task[tuple[bytes, bytes]]") -> None:
    """Wait until the proxy answers."""
    while True:
        assert not said.done(), said.result()
        try:
            if (await http.get("/readyz")).status_code == 200:
                return
        except httpx.TransportError:
            pass
        await asyncio.sleep(0.05)


async def test_a_client_does_not_choose_its_address_and_the_host_is_passed_on(
    proxy: Proxy,
) -> None:
    forged = {"X-Forwarded-For": "6.6.6.6", "Forwarded": "for=6.6.6.6", "X-Forwarded-Proto": "x"}
    headers = (await proxy.http.get("/api", headers=forged)).json()
    assert headers["x-forwarded-for"] == "127.0.0.1"
    assert headers["x-forwarded-proto"] == "https"
    assert headers["host"] == proxy.url.removeprefix("https://")
    assert "forwarded" not in headers


async def test_the_notices_of_orthanc_do_not_pass(proxy: Proxy) -> None:
    assert (await proxy.http.post("/internal/orthanc-events")).status_code == 404
    assert all(process.paths == [] for process in proxy.processes)


async def test_all_frames_of_an_instance_reach_one_process_whatever_their_signature(
    proxy: Proxy,
) -> None:
    for instance in INSTANCES:
        for signature in ("k1.aaaa.bbbb", "k2.cccc.dddd"):
            for frame in range(3):
                path = f"/frames/v2/{signature}/{instance}/0123abcd/{frame}/image.png"
                (await proxy.http.get(path)).raise_for_status()
    counts = [Counter(path.split("/")[4] for path in one.paths) for one in proxy.processes]
    for instance in INSTANCES:
        assert sorted(count[instance] for count in counts) == [0, 6]
    assert all(counts)


async def test_an_upload_is_passed_on_while_it_arrives(proxy: Proxy) -> None:
    arrived = [asyncio.create_task(process.first_bytes.wait()) for process in proxy.processes]

    async def body() -> AsyncIterator[bytes]:
        yield bytes(300_000)
        async with asyncio.timeout(PATIENCE_SECONDS):
            # A proxy that buffers would wait for the rest.
            await asyncio.wait(arrived, return_when=asyncio.FIRST_COMPLETED)
        yield bytes(300_000)

    try:
        sent = await proxy.http.post("/graphql", content=body())
        assert sent.json() == 600_000
    finally:
        for task in arrived:
            task.cancel()


async def test_websockets_are_passed_on(proxy: Proxy) -> None:
    address = f"{proxy.url.replace('https', 'wss')}/graphql"
    protocols = ["graphql-transport-ws"]
    async with connect(address, ssl=proxy.trust, subprotocols=protocols, proxy=None) as websocket:  # type: ignore[arg-type]  # plain strings do
        await websocket.send("hello")
        assert await websocket.recv() == "hello"
        assert websocket.subprotocol == "graphql-transport-ws"


async def test_pictures_uploads_and_headers_pass_over_http_2(proxy: Proxy) -> None:
    async with httpx.AsyncClient(
        base_url=proxy.url, verify=proxy.trust, trust_env=False, timeout=60, http1=False, http2=True
    ) as http:
        answers = await asyncio.gather(
            *(http.get(f"/frames/v2/k1.a.b/{one}/0123abcd/0/image.png") for one in INSTANCES)
        )
        assert {answer.http_version for answer in answers} == {"HTTP/2"}
        assert {answer.json()["x-forwarded-proto"] for answer in answers} == {"https"}
        sent = await http.post("/graphql", content=bytes(300_000))
        assert (sent.http_version, sent.json()) == ("HTTP/2", 300_000)
