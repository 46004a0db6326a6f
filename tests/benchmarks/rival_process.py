"""Rivals that are servers of Python, each in a process of its own."""

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from services.embedded.ports import find_free_port

_START_SECONDS = 30


@asynccontextmanager
async def run_rival(module: str, *arguments: str) -> AsyncIterator[str]:
    """Run a module that serves HTTP on the port that is its last argument.

    Args:
        module: Its name.
        arguments: What comes before the port.

    Yields:
        Its URL, without a slash at the end.
    """
    port = find_free_port()
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", module, *arguments, str(port)
    )
    try:
        url = f"http://127.0.0.1:{port}"
        await _until_up(url)
        yield url
    finally:
        process.terminate()
        await process.wait()


def serve_rival(route: BaseRoute, port: str) -> None:
    """Serve one route on a port of loopback as our server is served, without its middleware."""
    uvicorn.run(
        Starlette(routes=[route]),
        port=int(port),
        loop="uvloop",
        log_config=None,
        access_log=False,
        server_header=False,
    )


async def _until_up(url: str) -> None:
    async with asyncio.timeout(_START_SECONDS), httpx.AsyncClient(trust_env=False) as http:
        while True:
            try:
                await http.get(url)
            except httpx.TransportError:
                await asyncio.sleep(0.05)
            else:
                return
