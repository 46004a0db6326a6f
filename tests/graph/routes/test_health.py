"""Readiness is asked for once, however many want to know."""

import asyncio
from typing import Any, cast

import httpx
import pytest
from starlette.applications import Starlette
from starlette.types import Receive, Scope, Send

from graph.routes import health
from graph.routes.health import Readiness, RecentReadiness, health_routes
from services.auth.roles import Principal, Role
from services.runtime import Runtime

RUNTIME = cast("Runtime", object())


class Dependencies:
    """Counts how often they are asked; answers when it is let."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def look(self, _runtime: Runtime) -> Readiness:
        self.asked += 1
        await self.answers.wait()
        return Readiness(is_ready=True, status="ok", details={"asked": self.asked})


class Clock:
    """Stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_simultaneous_callers_share_one_look() -> None:
    dependencies = Dependencies()
    recent = RecentReadiness(dependencies.look)
    dependencies.answers.clear()
    callers = [asyncio.create_task(recent.of(RUNTIME)) for _ in range(200)]
    await asyncio.sleep(0)
    dependencies.answers.set()
    found = await asyncio.gather(*callers)
    assert {answer.details["asked"] for answer in found} == {1}
    assert dependencies.asked == 1


async def test_an_answer_lasts_a_second() -> None:
    dependencies, clock = Dependencies(), Clock()
    recent = RecentReadiness(dependencies.look, clock=clock)
    asked = []
    for moment in (100.0, 100.99, 101.0, 101.5, 102.0):
        clock.now = moment
        asked.append((await recent.of(RUNTIME)).details["asked"])
    assert asked == [1, 1, 2, 2, 3]


async def test_a_caller_who_goes_leaves_the_look_to_the_next() -> None:
    dependencies = Dependencies()
    recent = RecentReadiness(dependencies.look)
    dependencies.answers.clear()
    first, second = (asyncio.create_task(recent.of(RUNTIME)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    dependencies.answers.set()
    assert (await second).details == {"asked": 2}


class Authenticator:
    """Takes the header for the role."""

    async def authenticate(self, authorization: str | None) -> Principal | None:
        return None if authorization is None else Principal("somebody", Role[authorization])


class FakeRuntime:
    authenticator = Authenticator()


@pytest.mark.parametrize("status", ["ok", "degraded", "unavailable"])
async def test_only_administrators_are_told_details(
    status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    details = {"status": status, "mongodb": {"status": "ok", "version": "6.0.5"}}

    async def look(_runtime: Runtime) -> Readiness:
        return Readiness(is_ready=status != "unavailable", status=status, details=details)

    monkeypatch.setattr(health, "look", look)
    app = Starlette(routes=health_routes())

    async def with_state(scope: Scope, receive: Receive, send: Send) -> None:
        await app({**scope, "state": {"runtime": FakeRuntime()}}, receive, send)

    answers: dict[str | None, Any] = {}
    transport = httpx.ASGITransport(with_state)
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as http:
        for role in (None, "VIEWER", "UPLOADER", "ADMIN"):
            headers = {} if role is None else {"Authorization": role}
            answer = await http.get("/readyz", headers=headers)
            assert answer.status_code == (503 if status == "unavailable" else 200)
            answers[role] = answer.json()
    stranger = {"status": status}
    assert answers == {
        None: stranger,
        "VIEWER": stranger,
        "UPLOADER": stranger,
        "ADMIN": details,
    }
