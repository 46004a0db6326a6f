"""The end of the HTTP server: what runs ends, what comes meanwhile is served."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from graph.http.middleware import RequestContextMiddleware
from graph.http.server import server_config
from graph.http.shutdown import GracefulServer
from services.health.readiness import Readiness
from services.settings import Settings
from tests.patience import PATIENCE_SECONDS

READABLE = SimpleNamespace(has_readable_server=lambda _preference: True)


@dataclass(slots=True)
class Stage:
    url: str
    server: GracefulServer
    readiness: Readiness
    serving: "asyncio.Task[None]"
    begun: asyncio.Event = field(default_factory=asyncio.Event)
    may_end: asyncio.Event = field(default_factory=asyncio.Event)

    async def ended(self) -> None:
        async with asyncio.timeout(PATIENCE_SECONDS):
            await self.serving


@asynccontextmanager
async def serving(*, delay_seconds: float, shutdown_seconds: int = 30) -> AsyncIterator[Stage]:
    readiness = Readiness(cast("Any", SimpleNamespace(topology_description=READABLE)))

    async def answer(_: Request) -> PlainTextResponse:
        return PlainTextResponse(readiness.status)

    async def long(_: Request) -> PlainTextResponse:
        stage.begun.set()
        await stage.may_end.wait()
        return PlainTextResponse("whole")

    app = Starlette(
        routes=[Route("/", answer), Route("/long", long)],
        middleware=[Middleware(RequestContextMiddleware)],
    )

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        scope.setdefault("state", {})["runtime"] = SimpleNamespace(readiness=readiness)
        await app(scope, receive, send)

    settings = Settings(_env_file=None, shutdown_seconds=shutdown_seconds)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = server_config(with_state, settings)
        server = GracefulServer(config, readiness, delay_seconds=delay_seconds)
        task = asyncio.create_task(server._serve([listener]))
        stage = Stage(url, server, readiness, task)
        while not (server.started or task.done()):  # noqa: ASYNC110  # uvicorn tells nobody
            await asyncio.sleep(0.01)
        try:
            yield stage
        finally:
            stage.may_end.set()
            server.interrupt()
            await stage.ended()


async def test_while_it_waits_for_balancers_everything_is_served_on_closing_connections() -> None:
    async with serving(delay_seconds=PATIENCE_SECONDS) as stage:
        async with httpx.AsyncClient(base_url=stage.url, trust_env=False) as http:
            before = await http.get("/")
            stage.server.stop()
            answers = [await http.get("/") for _ in range(3)]
        assert (before.text, before.headers.get("connection")) == ("ready", None)
        assert {answer.text for answer in answers} == {"stopping"}
        assert {answer.headers.get("connection") for answer in answers} == {"close"}
        assert not stage.serving.done()
        stage.server.stop()
        await stage.ended()


async def test_a_request_that_crosses_the_end_is_answered() -> None:
    async with serving(delay_seconds=0) as stage:
        port = httpx.URL(stage.url).port
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert (await reader.readuntil(b"ready")).startswith(b"HTTP/1.1 200")
        stage.server.stop()
        while stage.server.servers[0].is_serving():  # noqa: ASYNC110  # uvicorn tells nobody
            await asyncio.sleep(0.01)
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"connection: close" in answer
        await stage.ended()


@pytest.mark.parametrize(("seconds", "answers"), [(30, True), (0, False)])
async def test_a_request_that_runs_ends_within_its_time_or_is_cut(
    seconds: int,
    answers: bool,
) -> None:
    async with serving(delay_seconds=0, shutdown_seconds=seconds) as stage:
        async with httpx.AsyncClient(base_url=stage.url, trust_env=False) as http:
            asking = asyncio.create_task(http.get("/long"))
            await stage.begun.wait()
            stage.server.stop()
            if answers:
                stage.may_end.set()
            answer = await asking
            assert answer.is_success is answers
        await stage.ended()
