"""The server under test, on a port of the loopback interface."""

import secrets
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from pydantic import SecretStr

from graph.app import create_app
from graph.http.server import server_config
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.frames.signing import generate_key
from services.runtime import Runtime
from services.settings import Settings
from tests.clients import http_client
from tests.patience import PATIENCE_SECONDS


def settings_on(
    mongodb: EmbeddedMongod, orthanc: EmbeddedOrthanc, data_dir: Path, **more: Any
) -> Settings:
    """Settings of a server on real stores, with a new database unless `more` names one.

    A query may take long: the machine may be busy.
    """
    more.setdefault("mongodb_database", f"test_{secrets.token_hex(6)}")
    more.setdefault("operation_seconds", PATIENCE_SECONDS)
    return Settings(
        _env_file=None,
        data_dir=data_dir,
        mongodb_url=SecretStr(mongodb.url),
        orthanc_url=orthanc.url,
        orthanc_username=orthanc.username,
        orthanc_password=SecretStr(orthanc.password),
        frame_url_keys=SecretStr(generate_key()),
        **more,
    )


async def answered(http: httpx.AsyncClient, query: str, variables: object) -> dict[str, object]:
    """Execute an operation that must succeed; answers its data."""
    response = await http.post("/graphql", json={"query": query, "variables": variables})
    body = response.json()
    assert "errors" not in body, body
    data: dict[str, object] = body["data"]
    return data


@dataclass(frozen=True, slots=True)
class RunningServer:
    """A server that answers, and a client for it."""

    url: str
    runtime: Runtime
    http: httpx.AsyncClient

    async def graphql(self, query: str, **variables: object) -> dict[str, object]:
        """Execute an operation that must succeed; answers its data."""
        return await answered(self.http, query, variables)


@asynccontextmanager
async def run_uvicorn(config: uvicorn.Config, listener: socket.socket) -> AsyncIterator[None]:
    """Answer the requests of a socket for as long as the context is open."""
    server = uvicorn.Server(config)
    # `serve` would replace the signal handlers of the tests, and look for its end every 0.1 s.
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup([listener])
    await server.on_tick(0)
    try:
        yield
    finally:
        await server.shutdown([listener])


@asynccontextmanager
async def run_server(settings: Settings, runtime: Runtime) -> AsyncIterator[RunningServer]:
    """Serve `runtime` over real HTTP for as long as the context is open."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        app = create_app(settings, runtime=runtime)
        stopping = settings.model_copy(update={"shutdown_seconds": 2})
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with run_uvicorn(server_config(app, stopping), listener), http_client(url) as http:
            yield RunningServer(url, runtime, http)
