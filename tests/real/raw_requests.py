"""Requests over a bare socket: what clients send that no client library would."""

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from tests.servers import RunningServer

_PATIENCE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class RawAnswer:
    """What came back."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:  # noqa: ANN401  # JSON
        return json.loads(self.body)


def head(path: str, headers: Mapping[str, str]) -> bytes:
    """Write the head of a POST."""
    lines = [f"POST {path} HTTP/1.1", "Host: localhost"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


async def read_answer(reader: asyncio.StreamReader) -> RawAnswer:
    """Read one answer that has a length."""
    async with asyncio.timeout(_PATIENCE_SECONDS):
        first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        pairs = (line.split(":", 1) for line in lines if line)
        headers = {name.lower(): value.strip() for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
    return RawAnswer(int(first.split()[1]), headers, body)


@asynccontextmanager
async def connected(
    server: RunningServer,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection."""
    address = httpx.URL(server.url)
    reader, writer = await asyncio.open_connection(address.host, address.port)
    try:
        yield reader, writer
    finally:
        writer.close()


@asynccontextmanager
async def half_sent(
    server: RunningServer, path: str, headers: Mapping[str, str], body: bytes = b""
) -> AsyncIterator[asyncio.StreamReader]:
    """Send the headers and a part of the body, and keep the connection."""
    async with connected(server) as (reader, writer):
        writer.write(head(path, headers) + body)
        await writer.drain()
        yield reader


async def answer_to_half(
    server: RunningServer, path: str, headers: Mapping[str, str], body: bytes = b""
) -> tuple[int, Any]:
    """Answers status and body of a request whose own body never ends."""
    async with half_sent(server, path, headers, body) as reader:
        answer = await read_answer(reader)
    return answer.status, answer.json
