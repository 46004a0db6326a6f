"""Modalities for tests: pynetdicom applications, and sockets that break the rules of DICOM."""

import asyncio
import contextlib
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.presentation import PresentationContext
from pynetdicom.transport import AssociationSocket, ThreadedAssociationServer

from services.embedded.ports import find_free_port
from services.modalities.association import Peer
from services.modalities.query import STUDIES
from services.modalities.transfer import GET, MOVE


def _shutdown_socket(self: AssociationSocket) -> None:
    """Close a socket; pynetdicom leaves one open whose peer was first to close."""
    if self.socket is not None:
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()


AssociationSocket._shutdown_socket = _shutdown_socket  # type: ignore[method-assign]

Handlers = Sequence[tuple[Any, Callable[..., Any]]]


def peer_at(
    port: int,
    *,
    ae_title: str = "PEER",
    silence_seconds: float = 5.0,
    tls: ssl.SSLContext | None = None,
) -> Peer:
    return Peer(
        name="pacs",
        ae_title=ae_title,
        host="127.0.0.1",
        port=port,
        calling="ORTHANC",
        silence_seconds=silence_seconds,
        tls=tls,
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
    tls: ssl.SSLContext | None = None,
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
    server = entity.start_server(
        ("127.0.0.1", chosen), block=False, evt_handlers=list(handlers), ssl_context=tls
    )
    assert server is not None
    try:
        yield chosen
    finally:
        stop(server)


def stop(server: ThreadedAssociationServer) -> None:
    """Stop a pynetdicom application at once: by itself it looks every half second."""
    for association in server.active_associations:
        association.abort()
    # The connections that wake it up are closed and not taken as associations.
    server.verify_request = lambda *_: False  # type: ignore[method-assign]  # of this server alone
    stopping = threading.Thread(target=server.shutdown)
    stopping.start()
    while stopping.is_alive():
        with contextlib.suppress(OSError):
            socket.create_connection(server.server_address[:2], timeout=1).close()
        stopping.join(0.01)
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


@dataclass(slots=True)
class FakeArchive:
    """An archive that fails as it is told to.

    Attributes:
        datasets: What it has, by SOPInstanceUID.
        failing: SOPInstanceUIDs that it can't transfer.
        abort_after: It aborts the association after so many; None: never.
        delay_seconds: Before each instance.
        sent: SOPInstanceUIDs that it has sent, in their order.
        requests: Level and keys of what it was asked to transfer.
        cancelled: Set when it was told to stop.
        offers_get: Whether it offers C-GET.
        destination: Host and port that it knows ORTHANC by; None: it does not know it.
        impostors: What it sends in place of datasets, by SOPInstanceUID.
    """

    datasets: dict[str, Dataset]
    failing: set[str] = field(default_factory=set)
    abort_after: int | None = None
    delay_seconds: float = 0.0
    offers_get: bool = True
    destination: tuple[str, int] | None = None
    impostors: dict[str, Dataset] = field(default_factory=dict)
    sent: list[str] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    cancelled: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def running(self, port: int | None = None) -> Iterator[int]:
        """Run it; answers its port."""
        contexts = [STUDIES, MOVE, *([GET] if self.offers_get else [])]
        storage = sorted({str(one.SOPClassUID) for one in self.datasets.values()})
        entity = AE(ae_title="PEER")
        for context in contexts:
            entity.add_supported_context(context)
        for uid in storage:
            entity.add_supported_context(uid, scu_role=True, scp_role=True)
            entity.add_requested_context(uid)
        chosen = port or find_free_port()
        server = entity.start_server(
            ("127.0.0.1", chosen),
            block=False,
            evt_handlers=[
                (evt.EVT_C_FIND, self._find),
                (evt.EVT_C_GET, self._get),
                (evt.EVT_C_MOVE, self._move),
            ],
        )
        assert server is not None
        try:
            yield chosen
        finally:
            stop(server)

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        asked = event.identifier
        key = {
            "STUDY": "StudyInstanceUID",
            "SERIES": "SeriesInstanceUID",
            "IMAGE": "SOPInstanceUID",
        }[asked.QueryRetrieveLevel]
        seen = set()
        for one in self._matching(asked):
            if one[key].value in seen:
                continue
            seen.add(one[key].value)
            answer = Dataset()
            for element in asked:
                if element.keyword in one:
                    answer[element.keyword] = one[element.keyword]
            yield 0xFF00, answer

    def _matching(self, asked: Dataset) -> list[Dataset]:
        keys = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
        found = []
        for one in self.datasets.values():
            wanted = {key: asked.get(key) for key in keys if asked.get(key)}
            if all(
                one[key].value in ([value] if isinstance(value, str) else list(value))
                for key, value in wanted.items()
            ):
                found.append(one)
        return found

    def _get(self, event: evt.Event) -> Iterator[Any]:
        yield from self._transfer(event)

    def _move(self, event: evt.Event) -> Iterator[Any]:
        yield self.destination or (None, None)
        yield from self._transfer(event)

    def _transfer(self, event: evt.Event) -> Iterator[Any]:
        asked = event.identifier
        found = self._matching(asked)
        self.requests.append((asked.QueryRetrieveLevel, str(len(found))))
        yield len(found)
        for number, one in enumerate(found):
            if event.is_cancelled:
                self.cancelled.set()
                yield 0xFE00, None
                return
            if self.abort_after is not None and number >= self.abort_after:
                event.assoc.abort()
                return
            if self.delay_seconds:
                time.sleep(self.delay_seconds)
            if one.SOPInstanceUID in self.failing:
                broken = Dataset()
                broken.update(one)
                broken.file_meta = one.file_meta
                # It was not negotiated; elements are shared with the dataset itself.
                del broken.SOPClassUID
                broken.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.1"
                yield 0xFF00, broken
                continue
            self.sent.append(str(one.SOPInstanceUID))
            yield 0xFF00, self.impostors.get(str(one.SOPInstanceUID), one)
