"""`studyEvents` over a real WebSocket, from a server that follows a real Orthanc."""

import asyncio
import io
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Origin

from services.auth.roles import Role
from services.auth.tokens import TokenStore
from services.ingest.service import SentFile
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from services.sync.events import LISTENER_MAX_EVENTS, StudyChange, StudyChangeKind
from tests.patience import PATIENCE_SECONDS
from tests.real.sync_stage import eventually, instance_bytes, modality_client, running
from tests.servers import RunningServer, run_server
from tests.tokens import give_tokens

Message = dict[str, Any]

UID = "1.2.826.0.1.3680043.8.498.{}"
STABLE_SECONDS = 1.5
FORBIDDEN = 4403
"""Close code of graphql-transport-ws for a `connection_init` that is refused."""
EVENTS = """subscription ($uid: String) {
  studyEvents(studyInstanceUID: $uid) { kind studyInstanceUID study { numberOfInstances } }
}"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Studies become stable soon, and one web page is welcome."""
    return settings.model_copy(
        update={
            "study_stable_seconds": STABLE_SECONDS,
            "sync_poll_seconds": 0.1,
            "cors_allowed_origins": ["https://viewer.example.org"],
        }
    )


@asynccontextmanager
async def subscribed(
    server: RunningServer,
    *,
    uid: str | None = None,
    payload: Message | None = None,
    origin: Origin | None = None,
) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket and subscribe."""
    url = server.url.replace("http", "ws") + "/graphql"
    protocols: Any = ["graphql-transport-ws"]
    async with connect(url, subprotocols=protocols, origin=origin, proxy=None) as opened:
        await opened.send(json.dumps({"type": "connection_init", "payload": payload or {}}))
        assert (await received(opened))["type"] == "connection_ack"
        start = {"query": EVENTS, "variables": {"uid": uid}}
        await opened.send(json.dumps({"id": "1", "type": "subscribe", "payload": start}))
        yield opened


async def received(connection: ClientConnection) -> Message:
    async with asyncio.timeout(PATIENCE_SECONDS):
        message: Message = json.loads(await connection.recv())
        return message


async def next_event(connection: ClientConnection) -> tuple[str, str, int | None]:
    message = await received(connection)
    assert message["type"] == "next", message
    event = message["payload"]["data"]["studyEvents"]
    study = event["study"]
    return event["kind"], event["studyInstanceUID"], study and study["numberOfInstances"]


async def until_watching(runtime: Runtime, listeners: int = 1) -> None:
    async def is_watching() -> bool:
        told = runtime.study_events
        return (
            told.is_watching
            and told._stream._is_open.is_set()
            and len(told._listeners) == listeners
        )

    await eventually(is_watching)


@pytest.fixture
async def modality(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A way into Orthanc that is not ours."""
    async with modality_client(settings) as http:
        yield http


async def send(modality: httpx.AsyncClient, content: bytes) -> str:
    answer = await modality.post("/instances", content=content)
    return str(answer.raise_for_status().json()["ID"])


async def test_a_study_from_elsewhere_is_created_updated_stable_and_deleted(
    server: RunningServer, runtime: Runtime, modality: httpx.AsyncClient
) -> None:
    assert runtime.sync is not None
    async with (
        running(runtime.sync),
        subscribed(server) as everything,
        subscribed(server, uid=UID.format(2)) as other_study,
    ):
        await until_watching(runtime, listeners=2)
        first = await send(modality, instance_bytes(1, 1, 1))
        told = [await next_event(everything)]
        second = await send(modality, instance_bytes(1, 1, 2))
        told += [await next_event(everything), await next_event(everything)]
        for instance_id in (first, second):
            await modality.delete(f"/instances/{instance_id}")
        runtime.sync.notice_deleted([first, second])
        told.append(await next_event(everything))
        await send(modality, instance_bytes(2, 1, 1))
        filtered = await next_event(other_study)
    uid = UID.format(1)
    assert told == [("CREATED", uid, 1), ("UPDATED", uid, 2), ("STABLE", uid, 2),
                    ("DELETED", uid, None)]  # fmt: skip
    assert filtered == ("CREATED", UID.format(2), 1)

    async def is_at_rest() -> bool:
        return not runtime.study_events.is_watching

    # Clients that are gone cost nothing.
    await eventually(is_at_rest)


@pytest.mark.parametrize("key", ["Authorization", "authToken"])
async def test_a_token_in_connection_init_opens_the_events_and_nothing_else_does(
    settings: Settings, key: str
) -> None:
    token = give_tokens(settings, screen=Role.VIEWER)["screen"]
    payload = {key: f"Bearer {token}" if key == "Authorization" else token}
    async with open_runtime(settings) as runtime, run_server(settings, runtime) as server:
        with pytest.raises(ConnectionClosed) as refused:
            async with subscribed(server, payload={key: "Bearer forged"}):
                pass
        assert refused.value.rcvd is not None
        assert refused.value.rcvd.code == FORBIDDEN
        async with subscribed(server, payload=payload) as screen:
            await until_watching(runtime)
            await runtime.ingest.store([sent(instance_bytes(1, 1, 1))])
            assert await next_event(screen) == ("CREATED", UID.format(1), 1)


async def test_a_revoked_token_ends_its_events_and_opens_nothing_any_more(
    settings: Settings,
) -> None:
    token = give_tokens(settings, screen=Role.VIEWER)["screen"]
    payload = {"Authorization": f"Bearer {token}"}
    async with (
        open_runtime(settings) as runtime,
        run_server(settings, runtime) as server,
        subscribed(server, payload=payload) as screen,
    ):
        await until_watching(runtime)
        await runtime.ingest.store([sent(instance_bytes(1, 1, 1))])
        assert await next_event(screen) == ("CREATED", UID.format(1), 1)
        await TokenStore(runtime.database).revoke("screen", now=datetime.now(UTC))

        async def is_revoked() -> bool:
            return await runtime.authenticator.authenticate(f"Bearer {token}") is None

        await eventually(is_revoked)
        await runtime.ingest.store([sent(instance_bytes(2, 1, 1))])
        [error] = refused_errors(await received(screen))
        assert (await received(screen))["type"] == "complete"
        query = {"query": "{ studies { totalCount } }"}
        await screen.send(json.dumps({"id": "2", "type": "subscribe", "payload": query}))
        [refused] = refused_errors(await received(screen))
    assert error["extensions"]["code"] == "UNAUTHENTICATED"
    assert refused["extensions"]["code"] == "UNAUTHENTICATED"


async def test_pages_of_foreign_origins_can_not_subscribe(
    server: RunningServer, runtime: Runtime
) -> None:
    with pytest.raises(InvalidStatus) as refused:
        async with subscribed(server, origin=Origin("https://evil.example.org")):
            pass
    assert refused.value.response.status_code == 403
    async with subscribed(server, origin=Origin("https://viewer.example.org")):
        await until_watching(runtime)


async def test_a_client_that_does_not_read_is_cut_off_and_the_others_go_on(
    server: RunningServer, runtime: Runtime
) -> None:
    async with subscribed(server) as slow:
        await until_watching(runtime)
        [listener] = runtime.study_events._listeners
        async with subscribed(server) as quick:
            await until_watching(runtime, listeners=2)
            change = StudyChange(StudyChangeKind.DELETED, "id", UID.format(7), None)
            for _ in range(LISTENER_MAX_EVENTS + 1):
                listener.add(change)
            [error] = refused_errors(await received(slow))
            await runtime.ingest.store([sent(instance_bytes(1, 1, 1))])
            assert await next_event(quick) == ("CREATED", UID.format(1), 1)
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
    assert "Subscribe again" in error["message"]


def refused_errors(message: Message) -> list[Message]:
    """Return the errors of a subscription that is over, in either form of the protocol."""
    payload = message["payload"]
    found: list[Message] = payload if message["type"] == "error" else payload["errors"]
    return found


def sent(content: bytes) -> SentFile:
    return SentFile("ct.dcm", lambda: io.BytesIO(content))
