"""`studyEvents` over a real WebSocket, from a server that follows a real Orthanc."""

import asyncio
import io
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin

from services.access import Role
from services.credentials.token_file import changed_tokens
from services.credentials.tokens import issue_token
from services.ingest.service import SentFile
from services.orthanc.client import OrthancClient
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from services.sync import events
from tests.real.sync_stage import eventually, instance_bytes, running
from tests.servers import RunningServer, run_server

Message = dict[str, Any]

UID = "1.2.826.0.1.3680043.8.498.{}"
STABLE_SECONDS = 1.5
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
    query: str = EVENTS,
    uid: str | None = None,
    payload: Message | None = None,
    origin: Origin | None = None,
) -> AsyncIterator[ClientConnection]:
    """Open a WebSocket and subscribe."""
    url = server.url.replace("http", "ws") + "/graphql"
    protocols: Any = ["graphql-transport-ws"]
    async with connect(
        url, subprotocols=protocols, proxy=None, origin=origin, max_queue=1
    ) as socket:
        await socket.send(json.dumps({"type": "connection_init", "payload": payload or {}}))
        assert (await received(socket))["type"] == "connection_ack"
        start = {"query": query, "variables": {"uid": uid}}
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": start}))
        yield socket


async def received(socket: ClientConnection) -> Message:
    async with asyncio.timeout(15):
        message: Message = json.loads(await socket.recv())
        return message


async def next_event(socket: ClientConnection) -> tuple[str, str, int | None]:
    message = await received(socket)
    assert message["type"] == "next", message
    event = message["payload"]["data"]["studyEvents"]
    study = event["study"]
    return event["kind"], event["studyInstanceUID"], study and study["numberOfInstances"]


async def until_watching(runtime: Runtime, listeners: int = 1) -> None:
    async def is_watching() -> bool:
        told = runtime.study_events
        return told.is_watching and told._is_open.is_set() and len(told._listeners) == listeners

    await eventually(is_watching)


def orthanc_of(runtime: Runtime) -> OrthancClient:
    assert runtime.orthanc is not None
    return runtime.orthanc


async def send(runtime: Runtime, content: bytes) -> str:
    """Store straight in Orthanc, as a modality does."""

    async def chunks() -> AsyncIterator[bytes]:
        yield content

    return (await orthanc_of(runtime).store(chunks(), len(content))).instance_id


async def test_a_study_from_elsewhere_is_created_updated_stable_and_deleted(
    server: RunningServer, runtime: Runtime
) -> None:
    assert runtime.sync is not None
    async with (
        running(runtime.sync),
        subscribed(server) as everything,
        subscribed(server, uid=UID.format(2)) as other_study,
    ):
        await until_watching(runtime, listeners=2)
        first = await send(runtime, instance_bytes(1, 1, 1))
        told = [await next_event(everything)]
        second = await send(runtime, instance_bytes(1, 1, 2))
        told += [await next_event(everything), await next_event(everything)]
        for instance_id in (first, second):
            await orthanc_of(runtime).delete("instances", instance_id)
        runtime.sync.notice_deleted([first, second])
        told.append(await next_event(everything))
        await send(runtime, instance_bytes(2, 1, 1))
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
    with changed_tokens(settings.tokens_path) as change:
        change.tokens, token = issue_token(
            change.tokens, name="screen", role=Role.VIEWER, now=datetime.now(UTC)
        )
    payload = {key: f"Bearer {token}" if key == "Authorization" else token}
    async with open_runtime(settings) as runtime, run_server(settings, runtime) as server:
        async with subscribed(server, payload={key: "Bearer forged"}) as stranger:
            [error] = refused_errors(await received(stranger))
            assert error["extensions"]["code"] == "UNAUTHENTICATED"
        async with subscribed(server, payload=payload) as screen:
            await until_watching(runtime)
            await runtime.ingest.store([sent(instance_bytes(1, 1, 1))])
            assert await next_event(screen) == ("CREATED", UID.format(1), 1)
        await runtime.database.client.drop_database(settings.mongodb_database)


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
    server: RunningServer, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "LISTENER_MAX_EVENTS", 3)
    await runtime.ingest.store([sent(instance_bytes(1, 1, 1))])
    study = await runtime.database["studies"].find_one({})
    assert study is not None
    long_words = EVENTS.replace("numberOfInstances", "numberOfInstances studyDescription")
    async with subscribed(server, query=long_words) as slow, subscribed(server) as quick:
        await until_watching(runtime, listeners=2)
        for number in range(20):
            # Together 18 MB: more than the sockets between the two hold.
            copy = {"_id": f"copy-{number}", "studyDescription": secrets.token_hex(450_000)}
            await runtime.database["studies"].insert_one(study | copy)
            assert await next_event(quick) == ("CREATED", UID.format(1), 1)
        messages = [await received(slow)]
        while messages[-1]["type"] == "next" and "errors" not in messages[-1]["payload"]:
            messages.append(await received(slow))
    [error] = refused_errors(messages[-1])
    assert error["extensions"]["code"] == "LIMIT_EXCEEDED"
    assert "Subscribe again" in error["message"]
    assert 0 < len(messages) < 20


def refused_errors(message: Message) -> list[Message]:
    """Return the errors of a subscription that is over, in either form of the protocol."""
    payload = message["payload"]
    found: list[Message] = payload if message["type"] == "error" else payload["errors"]
    return found


def sent(content: bytes) -> SentFile:
    return SentFile("ct.dcm", lambda: io.BytesIO(content))
