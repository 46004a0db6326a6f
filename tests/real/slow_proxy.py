"""A TCP proxy on the loopback interface that delays answers or holds requests back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

_CHUNK_BYTES = 64 * 1024


@dataclass(slots=True)
class SlowProxy:
    """Passes bytes on.

    Attributes:
        server_port: Port of the server behind the proxy.
        delay_seconds: Delay of the server's bytes.
        held_after_bytes: Number of request bytes, over all connections, after which requests are
            held back until `released` is set; None: never.
        note: Called with the bytes of requests, as they come.
        port: Port that the proxy listens on.
    """

    server_port: int
    delay_seconds: float = 0.0
    held_after_bytes: int | None = None
    note: Callable[[bytes], None] = lambda _: None
    port: int = 0
    released: asyncio.Event = field(default_factory=asyncio.Event)
    _passed_bytes: int = 0
    _pumps: set[asyncio.Task[None]] = field(default_factory=set)

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        from_server, to_server = await asyncio.open_connection("127.0.0.1", self.server_port)
        for pump in (self._ask(reader, to_server), self._answer(from_server, writer)):
            task = asyncio.create_task(pump)
            self._pumps.add(task)
            task.add_done_callback(self._pumps.discard)

    async def close(self) -> None:
        """Break all connections."""
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)

    async def _ask(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(ConnectionError):
                while chunk := await reader.read(_CHUNK_BYTES):
                    limit = self.held_after_bytes
                    if limit is not None and self._passed_bytes > limit:
                        await self.released.wait()
                    self._passed_bytes += len(chunk)
                    self.note(chunk)
                    writer.write(chunk)
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        clock = asyncio.get_running_loop().time
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def pass_on() -> None:
            while True:
                due, chunk = await late.get()
                await asyncio.sleep(due - clock())
                writer.write(chunk)

        passing = asyncio.create_task(pass_on())
        try:
            with suppress(ConnectionError):
                while chunk := await reader.read(_CHUNK_BYTES):
                    late.put_nowait((clock() + self.delay_seconds, chunk))
        finally:
            passing.cancel()
            writer.close()


@asynccontextmanager
async def run_slow_proxy(
    server_port: int,
    *,
    held_after_bytes: int | None = None,
    note: Callable[[bytes], None] = lambda _: None,
) -> AsyncIterator[SlowProxy]:
    """Run a proxy in front of a server on this machine; arguments are those of `SlowProxy`."""
    proxy = SlowProxy(server_port, held_after_bytes=held_after_bytes, note=note)
    server = await asyncio.start_server(proxy.accept, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    async with server:
        try:
            yield proxy
        finally:
            await proxy.close()
