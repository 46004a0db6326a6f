"""HTTP clients that cost next to nothing, so that servers are measured and not their clients."""

import asyncio
import selectors
import socket
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

_HEAD_END = b"\r\n\r\n"
_BUFFER_BYTES = 1024 * 1024


def request_bytes(url: str, path: str, headers: Mapping[str, str]) -> bytes:
    """Return a GET as it goes over the wire."""
    lines = [f"GET {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode()


def posted_bytes(url: str, path: str, headers: Mapping[str, str], body: bytes) -> bytes:
    """Return a POST of JSON as it goes over the wire."""
    lines = [f"POST {path} HTTP/1.1", f"Host: {urlsplit(url).netloc}"]
    about = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    lines += [f"{name}: {value}" for name, value in (about | dict(headers)).items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


class LeanClient:
    """Asks over a fixed number of connections; use `open_lean_client`."""

    def __init__(self, url: str, headers: Mapping[str, str]) -> None:
        self._url = url
        self._headers = headers
        self._idle: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = (
            asyncio.Queue()
        )

    async def get(self, path: str, *, status: int = 200) -> bytes:
        """GET a path when a connection is free; answers the body.

        A connection that the server closed meanwhile is opened anew.

        Args:
            path: With its query; a whole URL loses what stands before the path.
            status: The one that is expected.
        """
        path = path.removeprefix(self._url)
        return await self._answer(request_bytes(self._url, path, self._headers), status)

    async def post(self, path: str, body: bytes) -> bytes:
        """POST JSON when a connection is free; answers the body."""
        return await self._answer(posted_bytes(self._url, path, self._headers, body), 200)

    async def connect(self, connections: int) -> None:
        """Open the connections."""
        for _ in range(connections):
            self._idle.put_nowait(await self._connection())

    def close(self) -> None:
        """Close the connections that are free: all, when nothing failed."""
        while not self._idle.empty():
            self._idle.get_nowait()[1].close()

    async def _answer(self, request: bytes, status: int) -> bytes:
        reader, writer = await self._idle.get()
        if reader.at_eof():
            writer.close()
            reader, writer = await self._connection()
        writer.write(request)
        head = await reader.readuntil(_HEAD_END)
        body = await reader.readexactly(_content_length(head))
        if not head.startswith(f"HTTP/1.1 {status} ".encode()):
            raise RuntimeError(f"{request.partition(_HEAD_END)[0].decode()}: {head.decode()}")
        self._idle.put_nowait((reader, writer))
        return body

    async def _connection(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        parts = urlsplit(self._url)
        return await asyncio.open_connection(parts.hostname, parts.port, limit=_BUFFER_BYTES)


@asynccontextmanager
async def open_lean_client(
    url: str, headers: Mapping[str, str], *, connections: int
) -> AsyncIterator[LeanClient]:
    """Open so many connections to one server."""
    client = LeanClient(url.rstrip("/"), headers)
    await client.connect(connections)
    try:
        yield client
    finally:
        client.close()


@dataclass(slots=True)
class _Exchange:
    """One connection of `seconds_per_request`: what is still to come of its answer."""

    connection: socket.socket
    request: bytes
    status: int
    head: bytearray = field(default_factory=bytearray)
    missing: int | None = None

    def send(self) -> None:
        self.head.clear()
        self.missing = None
        # A request fits into an empty socket buffer: this never blocks.
        self.connection.send(self.request)

    def receive(self, buffer: memoryview) -> bool:
        """Take what has come; answers whether the answer is complete."""
        count = self.connection.recv_into(buffer)
        if count == 0:
            raise ConnectionError("the server closed the connection")
        if self.missing is not None:
            self.missing -= count
            return self.missing <= 0
        self.head += buffer[:count]
        end = self.head.find(_HEAD_END)
        if end < 0:
            return False
        if not self.head.startswith(f"HTTP/1.1 {self.status} ".encode()):
            raise RuntimeError(self.head[:end].decode())
        length = (
            _content_length(bytes(self.head[: end + 2])) if self.status == 200 else 0
        )  # only it has a body
        self.missing = length - (len(self.head) - end - len(_HEAD_END))
        return self.missing <= 0


def seconds_per_request(  # a load has that many sides
    url: str,
    paths: Sequence[str],
    *,
    headers: Mapping[str, str],
    status: int,
    connections: int,
    seconds: float,
) -> float:
    """Ask as fast as a server answers, each connection again and again; blocks.

    Args:
        url: The server.
        paths: One for each connection, from the beginning again when there are fewer.
        headers: Of each request.
        status: The one that is expected.
        connections: At once.
        seconds: How long at least.

    Returns:
        Seconds divided by answers.
    """
    parts = urlsplit(url)
    buffer = memoryview(bytearray(_BUFFER_BYTES))
    count = 0
    with selectors.DefaultSelector() as selector:
        for index in range(connections):
            opened = socket.create_connection((parts.hostname or "", parts.port or 80))
            request = request_bytes(url, paths[index % len(paths)], headers)
            exchange = _Exchange(opened, request, status)
            selector.register(opened, selectors.EVENT_READ, exchange)
            exchange.send()
        started = time.perf_counter()
        # A slow rival gets the time for one answer on each connection.
        while (elapsed := time.perf_counter() - started) < seconds or count < connections:
            for key, _ in selector.select(seconds):
                if key.data.receive(buffer):
                    count += 1
                    key.data.send()
        for key in list(selector.get_map().values()):
            key.data.connection.close()
    return elapsed / count


def _content_length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    # Such as 304.
    return 0
