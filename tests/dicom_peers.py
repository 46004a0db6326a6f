"""Modalities for tests: pynetdicom applications, and sockets that break the rules of DICOM."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from pynetdicom import AE
from pynetdicom.presentation import PresentationContext

from services.embedded.ports import find_free_port
from services.modalities.association import Peer

Handlers = Sequence[tuple[Any, Callable[..., Any]]]


def peer_at(port: int, *, ae_title: str = "PEER", silence_seconds: float = 5.0) -> Peer:
    return Peer(
        name="pacs",
        ae_title=ae_title,
        host="127.0.0.1",
        port=port,
        calling="ORTHANC",
        silence_seconds=silence_seconds,
    )


@contextmanager
def running_peer(
    contexts: Sequence[str | PresentationContext],
    handlers: Handlers = (),
    *,
    port: int | None = None,
    requires_called: bool = False,
    requires_calling: Sequence[str] = (),
    roles: bool = False,
) -> Iterator[int]:
    """Run a pynetdicom application; answers its port."""
    entity = AE(ae_title="PEER")
    for context in contexts:
        if isinstance(context, PresentationContext):
            assert context.abstract_syntax is not None
            entity.add_supported_context(
                context.abstract_syntax,
                context.transfer_syntax,
                scu_role=roles or None,
                scp_role=roles or None,
            )
        else:
            entity.add_supported_context(context, scu_role=roles or None, scp_role=roles or None)
    entity.require_called_aet = requires_called
    entity.require_calling_aet = list(requires_calling)
    entity.network_timeout = 30
    chosen = port or find_free_port()
    server = entity.start_server(("127.0.0.1", chosen), block=False, evt_handlers=list(handlers))
    assert server is not None
    try:
        yield chosen
    finally:
        for association in server.active_associations:
            association.abort()
        server.shutdown()
        server.server_close()


@dataclass(slots=True)
class Silent:
    """A socket that takes connections and answers what it is told to, which may be nothing."""

    port: int
    closed: threading.Event = field(default_factory=threading.Event)


@asynccontextmanager
async def silent_peer(said: bytes = b"", *, closes: bool = False) -> AsyncIterator[Silent]:
    """Take connections; write `said` to each, and leave it open unless `closes`."""
    writers: list[asyncio.StreamWriter] = []
    loop = asyncio.get_running_loop()
    gone = threading.Event()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(said)
        if closes:
            writer.close()
        with contextlib.suppress(OSError):
            while await reader.read(65536):
                pass
        gone.set()

    server = await asyncio.start_server(take, "127.0.0.1", 0, family=socket.AF_INET)
    assert loop.is_running()
    try:
        yield Silent(server.sockets[0].getsockname()[1], gone)
    finally:
        server.close()
        for writer in writers:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()
        await server.wait_closed()
