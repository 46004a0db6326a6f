"""Webhooks on real stores, with a receiver of our own."""

import asyncio
import base64
import hmac
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from services.runtime import Runtime
from services.webhooks.queue import receiver_of
from services.webhooks.service import Webhooks
from services.webhooks.signature import WebhookKeys
from tests.patience import PATIENCE_SECONDS
from tests.real.dicomweb_stage import slices, store, uid
from tests.servers import RunningServer

KEY = bytes(range(32))
STABLE = timedelta(seconds=30)
DAY = timedelta(days=1)


@dataclass
class Receiver:
    """Takes deliveries, and answers with the statuses that it is given."""

    url: str = ""
    received: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)

    async def take(self, request: Request) -> Response:
        body = await request.body()
        headers = request.headers
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.digest(KEY, signed, "sha256")).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
        assert headers["content-type"] == "application/json"
        self.received.append((headers["webhook-id"], json.loads(body)))
        return Response(status_code=self.statuses.pop(0) if self.statuses else 204)

    @property
    def types(self) -> list[str]:
        return [event["type"] for _, event in self.received]


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = Starlette(routes=[Route("/hook", made.take, methods=["POST"])])
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off"))
        task = asyncio.create_task(server._serve([listener]))
        made.url = f"http://127.0.0.1:{listener.getsockname()[1]}/hook"
        try:
            yield made
        finally:
            server.should_exit = True
            await task


class Clock:
    def __init__(self) -> None:
        self.now = datetime.now(UTC)

    def __call__(self) -> datetime:
        return self.now


class Stage:
    """The queue and the sender, one step at a time."""

    def __init__(self, webhooks: Webhooks, receiver: Receiver, clock: Clock) -> None:
        self.webhooks = webhooks
        self.receiver = receiver
        self.clock = clock

    async def step(self, after: timedelta = timedelta(seconds=2)) -> list[str]:
        """Queue what happened, wait, deliver; answers the types of the events."""
        before = len(self.receiver.received)
        await self.webhooks._queue.fill(datetime.now(UTC))
        self.clock.now = datetime.now(UTC) + after
        await self.webhooks.deliver_due(receiver_of(self.receiver.url))
        return self.receiver.types[before:]


@asynccontextmanager
async def open_stage(runtime: Runtime, receiver: Receiver) -> AsyncIterator[Stage]:
    """Open a process that delivers; it begins where an earlier one ended."""
    clock = Clock()
    async with httpx.AsyncClient(trust_env=False) as http:
        webhooks = Webhooks(
            runtime.database,
            [receiver.url],
            WebhookKeys([KEY]),
            http,
            stable_seconds=STABLE.total_seconds(),
            give_up_after=DAY,
            now=clock,
        )
        await webhooks._queue.start(datetime.now(UTC))
        yield Stage(webhooks, receiver, clock)


async def delete_study(server: RunningServer) -> None:
    found: Any = await server.graphql("{ studies { nodes { id } } }")
    await server.graphql(
        "mutation ($id: ID!) { deleteStudy(id: $id) { deletedInstances } }",
        id=found["studies"]["nodes"][0]["id"],
    )


async def test_a_study_is_told_of_from_its_first_image_to_its_end(
    server: RunningServer, receiver: Receiver
) -> None:
    first, second, third = slices("P1", 3)
    async with open_stage(server.runtime, receiver) as stage:
        await store(server, [first])
        await store(server, [second])
        # A burst is one event; looking again finds nothing new.
        assert await stage.step() == ["study.created"]
        assert await stage.step() == []
        await store(server, [third])
        assert await stage.step() == ["study.updated"]
        assert await stage.step(STABLE + timedelta(seconds=2)) == ["study.stable"]
        await delete_study(server)
        assert await stage.step() == ["study.deleted"]
        assert await stage.step(STABLE + timedelta(seconds=2)) == []
    event = receiver.received[0][1]
    assert event["data"]["studyInstanceUID"] == uid("P1")
    assert set(event) == {"type", "timestamp", "data"}
    assert set(event["data"]) == {"studyInstanceUID", "orthancStudyId"}
    assert len({name for name, _ in receiver.received}) == 4
    assert await server.runtime.database["webhookDeliveries"].count_documents({}) == 0


async def test_what_happens_while_no_process_delivers_is_delivered_by_the_next(
    server: RunningServer, receiver: Receiver
) -> None:
    first, second = slices("P1", 1), slices("P2", 1)
    async with open_stage(server.runtime, receiver) as stage:
        await store(server, first)
        # The process dies when it has queued the event, before it is delivered.
        await stage.webhooks._queue.fill(datetime.now(UTC))
    await store(server, second)
    async with open_stage(server.runtime, receiver) as stage:
        assert set(await stage.step()) == {"study.created"}
    delivered = {event["data"]["studyInstanceUID"] for _, event in receiver.received}
    assert delivered == {uid("P1"), uid("P2")}
    # Another process can't know what was delivered in the last seconds: it repeats it by its name.
    before = dict(receiver.received)
    async with open_stage(server.runtime, receiver) as stage:
        await stage.step(STABLE + timedelta(seconds=2))
        await delete_study(server)
        await stage.step()
    async with open_stage(server.runtime, receiver) as stage:
        await stage.step(STABLE + timedelta(seconds=2))
    ids = [name for name, _ in receiver.received]
    events = {name: event["type"] for name, event in receiver.received}
    assert len(ids) > len(events)
    assert set(before) < set(events)
    # Both are told of as new and as complete, and one as deleted.
    assert sorted(events.values()) == [
        "study.created", "study.created", "study.deleted", "study.stable", "study.stable"
    ]  # fmt: skip


async def test_a_study_that_came_back_is_not_deleted(
    server: RunningServer, receiver: Receiver
) -> None:
    files = slices("P1", 1)
    async with open_stage(server.runtime, receiver) as stage:
        await store(server, files)
        assert await stage.step() == ["study.created"]
        await delete_study(server)
        await store(server, files)
        assert await stage.step() == ["study.updated"]
        await delete_study(server)
        assert await stage.step() == ["study.deleted"]
        await store(server, files)
        assert await stage.step() == ["study.created"]


async def test_a_failed_delivery_is_repeated_later_under_the_same_id(
    server: RunningServer, receiver: Receiver
) -> None:
    async with open_stage(server.runtime, receiver) as stage:
        await store(server, slices("P1", 1))
        receiver.statuses = [500, 302]
        assert await stage.step() == ["study.created"]
        assert await stage.step() == []
        assert await stage.step(timedelta(seconds=10)) == ["study.created"]
        assert await stage.step(timedelta(seconds=12)) == []
        assert await stage.step(timedelta(seconds=25)) == ["study.created"]
        assert await stage.step(timedelta(seconds=26)) == []
    assert len({name for name, _ in receiver.received}) == 1


async def test_retries_end(server: RunningServer, receiver: Receiver) -> None:
    async with open_stage(server.runtime, receiver) as stage:
        await store(server, slices("P1", 1))
        receiver.statuses = [500] * 9
        assert await stage.step() == ["study.created"]
        assert set(await stage.step(DAY + STABLE * 2)) == {"study.created", "study.stable"}
        # Both are given up now: the event itself and the one that followed it.
        remaining = await server.runtime.database["webhookDeliveries"].distinct("kind")
    assert "created" not in remaining


async def test_a_change_during_a_delivery_is_delivered_too(
    server: RunningServer, receiver: Receiver
) -> None:
    first, second = slices("P1", 2)
    async with open_stage(server.runtime, receiver) as stage:
        await store(server, [first])
        queue = stage.webhooks._queue
        await queue.fill(datetime.now(UTC))
        name = receiver_of(receiver.url)
        (taken,) = await queue.due(name, datetime.now(UTC) + timedelta(seconds=2), 10)
        await store(server, [second])
        await queue.fill(datetime.now(UTC))
        await queue.remove(taken)
        assert await stage.step() == ["study.created"]


async def test_a_server_delivers_by_itself(server: RunningServer, receiver: Receiver) -> None:
    async with open_stage(server.runtime, receiver) as stage:
        stage.webhooks._now = lambda: datetime.now(UTC)
        running = asyncio.create_task(stage.webhooks.run())
        try:
            await asyncio.sleep(0)
            await store(server, slices("P1", 1))
            async with asyncio.timeout(PATIENCE_SECONDS):
                while not receiver.received:  # noqa: ASYNC110  # the receiver is another server
                    await asyncio.sleep(0.05)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
    assert receiver.types[0] == "study.created"
