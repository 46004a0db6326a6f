"""The routes of health: who is told what, and how often the stores are asked for it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import AsyncMock

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from graph.routes import health
from graph.routes.health import RecentStatus, Status, health_routes
from services.audit import Audit
from services.auth.roles import Principal, Role
from services.runtime import Runtime

RUNTIME = cast("Runtime", object())


class Dependencies:
    """Counts how often they are asked; answers when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def look(self, _runtime: Runtime) -> Status:
        self.asked += 1
        await self.answers.wait()
        return {"asked": self.asked}


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_simultaneous_callers_share_one_look() -> None:
    dependencies = Dependencies()
    recent = RecentStatus(dependencies.look)
    dependencies.answers.clear()
    callers = [asyncio.create_task(recent.of(RUNTIME)) for _ in range(200)]
    await asyncio.sleep(0)
    dependencies.answers.set()
    found = await asyncio.gather(*callers)
    assert {answer["asked"] for answer in found} == {1}
    assert dependencies.asked == 1


async def test_an_answer_lasts_a_second() -> None:
    dependencies, clock = Dependencies(), Clock()
    recent = RecentStatus(dependencies.look, clock=clock)
    asked = []
    for moment in (100.0, 100.99, 101.0, 101.5, 102.0):
        clock.now = moment
        asked.append((await recent.of(RUNTIME))["asked"])
    assert asked == [1, 1, 2, 2, 3]


async def test_a_caller_who_goes_leaves_the_look_to_the_next() -> None:
    dependencies = Dependencies()
    recent = RecentStatus(dependencies.look)
    dependencies.answers.clear()
    first, second = (asyncio.create_task(recent.of(RUNTIME)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    dependencies.answers.set()
    assert await second == {"asked": 2}


class Authenticator:
    """Takes the header for the role."""

    async def authenticate(self, authorization: str | None) -> Principal | None:
        return None if authorization is None else Principal("somebody", Role[authorization])


@asynccontextmanager
async def client(readiness: str) -> AsyncIterator[httpx.AsyncClient]:
    runtime = SimpleNamespace(
        authenticator=Authenticator(),
        readiness=SimpleNamespace(status=readiness),
        audit=AsyncMock(spec=Audit),
    )
    app = Starlette(routes=health_routes())

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"runtime": runtime}}, receive, send)

    transport = httpx.ASGITransport(with_state)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        yield http


async def test_only_administrators_are_told_the_state_of_each_part(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    details = {"status": "degraded", "mongodb": {"status": "ok", "version": "6.0.5"}}

    async def look(_runtime: Runtime) -> Status:
        return details

    monkeypatch.setattr(health, "look", look)
    answers: dict[str | None, Any] = {}
    async with client("ready") as http:
        for role in (None, "VIEWER", "UPLOADER", "ADMIN"):
            headers = {} if role is None else {"Authorization": role}
            answers[role] = await http.get("/api/status", headers=headers)
    statuses = {role: answer.status_code for role, answer in answers.items()}
    assert statuses == {None: 401, "VIEWER": 403, "UPLOADER": 403, "ADMIN": 200}
    assert answers["ADMIN"].json() == details


@pytest.mark.parametrize(
    ("readiness", "code"), [("ready", 200), ("stopping", 503), ("unavailable", 503)]
)
async def test_balancers_are_told_whether_requests_may_come(readiness: str, code: int) -> None:
    async with client(readiness) as http:
        answer = await http.get("/readyz")
        alive = await http.get("/healthz")
    assert (answer.status_code, answer.json()) == (code, {"status": readiness})
    assert (alive.status_code, alive.json()) == (200, {"status": "ok"})
