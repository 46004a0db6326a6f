"""A subscriber that stops reading its TCP connection costs little, for a while, and alone."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from graph.http import server as slow_readers
from graph.http.server import TRY_AGAIN_LATER, WebSocketLimitsProtocol
from services.sync.events import LISTENER_MAX_EVENTS, Listener, StudyChange, StudyChangeKind
from tests.patience import PATIENCE_SECONDS
from tests.real.sync_stage import eventually, instance_bytes
from tests.real.test_subscriptions import sent
from tests.servers import RunningServer

EVENTS = 2_400
AT_ONCE = 100
DESCRIPTION = "x" * 1_000
ALIASES = 16
QUERY = (
    "subscription { studyEvents { kind study { "
    + " ".join(f"a{number}: studyDescription" for number in range(ALIASES))
    + " } } }"
)
BUFFER_BYTES = 64 * 1024 + 2 * ALIASES * len(DESCRIPTION)
"""What asyncio lets wait before it pauses a writer, and the event that was too many."""


@asynccontextmanager
async def subscribed(server: RunningServer) -> AsyncIterator[ClientConnection]:
    """Subscribe with small buffers, uncompressed, and read nothing but the acknowledgement."""
    host, port = server.url.removeprefix("http://").split(":")
    to_server = socket.socket()
    to_server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    to_server.connect((host, int(port)))
    to_server.setblocking(False)
    protocols: Any = ["graphql-transport-ws"]
    url = server.url.replace("http", "ws") + "/graphql"
    async with connect(
        url,
        sock=to_server,
        subprotocols=protocols,
        compression=None,
        max_queue=1,
        proxy=None,
        close_timeout=0.1,
    ) as opened:
        await opened.send(json.dumps({"type": "connection_init"}))
        assert json.loads(await opened.recv())["type"] == "connection_ack"
        start = {"id": "1", "type": "subscribe", "payload": {"query": QUERY}}
        await opened.send(json.dumps(start))
        yield opened


async def listeners(server: RunningServer, count: int) -> list[Listener]:
    """Wait until so many listen, and return them."""
    events = server.runtime.study_events

    async def are_there() -> bool:
        return len(events._listeners) == count and (count == 0 or events._stream._is_open.is_set())

    await eventually(are_there)
    return list(events._listeners)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[WebSocketLimitsProtocol]:
    """The connections of the server, as they are made."""
    made: list[WebSocketLimitsProtocol] = []
    connection_made = WebSocketLimitsProtocol.connection_made

    def noting(connection: WebSocketLimitsProtocol, transport: asyncio.BaseTransport) -> None:
        made.append(connection)
        connection_made(connection, transport)

    monkeypatch.setattr(WebSocketLimitsProtocol, "connection_made", noting)
    return made


async def change_of(server: RunningServer) -> StudyChange:
    await server.runtime.ingest.store([sent(instance_bytes(1, 1, 1))])
    document: Mapping[str, Any] | None = await server.runtime.database["studies"].find_one({})
    assert document is not None
    described = {**document, "studyDescription": DESCRIPTION}
    return StudyChange(StudyChangeKind.UPDATED, "id", "1.2", described)


async def test_who_stops_reading_is_closed_with_a_code_and_the_others_miss_nothing(
    server: RunningServer,
    connections: list[WebSocketLimitsProtocol],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slow_readers, "STALLED_SECONDS", 2.0)
    # The client of this test reads again, however busy the machine is.
    monkeypatch.setattr(slow_readers, "GRACE_SECONDS", PATIENCE_SECONDS)
    change = await change_of(server)
    async with subscribed(server) as slow:
        [stalled] = await listeners(server, 1)
        async with subscribed(server) as quick:
            both = await listeners(server, 2)
            most_waiting = 0
            for _ in range(EVENTS // AT_ONCE):
                for listener in both:
                    for _ in range(AT_ONCE):
                        listener.add(change)
                most_waiting = max(most_waiting, stalled.waiting)
                for _ in range(AT_ONCE):
                    assert json.loads(await quick.recv())["type"] == "next"
            buffered = [one.transport.get_write_buffer_size() for one in connections]
            assert max(buffered) <= BUFFER_BYTES
            # It was told more than may wait for it: nothing does any more.
            assert AT_ONCE < most_waiting <= LISTENER_MAX_EVENTS
            assert stalled.waiting == 0
            with pytest.raises(ConnectionClosed) as closed:
                await until_closed(slow, connections[0])
            [left] = await listeners(server, 1)
            left.add(change)
            assert json.loads(await quick.recv())["type"] == "next"
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == TRY_AGAIN_LATER
    assert "subscribe again" in closed.value.rcvd.reason


async def until_closed(client: ClientConnection, connection: WebSocketLimitsProtocol) -> None:
    """Read again when the server has given up."""

    async def has_given_up() -> bool:
        return connection.close_sent

    await eventually(has_given_up)
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            await client.recv()


async def test_who_never_reads_again_is_cut_off(
    server: RunningServer,
    connections: list[WebSocketLimitsProtocol],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slow_readers, "STALLED_SECONDS", 0.2)
    monkeypatch.setattr(slow_readers, "GRACE_SECONDS", 0.2)
    change = await change_of(server)
    async with subscribed(server):
        [stalled] = await listeners(server, 1)
        while connections[0].writable.is_set():
            stalled.add(change)
            await asyncio.sleep(0)
        await listeners(server, 0)

        async def is_cut() -> bool:
            return connections[0].disconnected

        await eventually(is_cut)


async def test_who_reads_again_in_time_stays(
    server: RunningServer,
    connections: list[WebSocketLimitsProtocol],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(slow_readers, "STALLED_SECONDS", 30.0)
    change = await change_of(server)
    async with subscribed(server) as client:
        [listener] = await listeners(server, 1)
        told = 0
        while connections[0].writable.is_set():
            listener.add(change)
            told += 1
            await asyncio.sleep(0)
        for _ in range(told):
            assert json.loads(await client.recv())["type"] == "next"
        assert not connections[0]._is_ended
        listener.add(change)
        assert json.loads(await client.recv())["type"] == "next"
