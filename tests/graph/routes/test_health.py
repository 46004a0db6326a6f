"""Readiness is asked for once, however many want to know."""

import asyncio
from typing import cast

from graph.routes.health import Readiness, RecentReadiness
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
        return Readiness(is_ready=True, facts={"asked": self.asked})


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
    assert {answer.facts["asked"] for answer in found} == {1}
    assert dependencies.asked == 1


async def test_an_answer_lasts_a_second() -> None:
    dependencies, clock = Dependencies(), Clock()
    recent = RecentReadiness(dependencies.look, clock=clock)
    asked = []
    for moment in (100.0, 100.99, 101.0, 101.5, 102.0):
        clock.now = moment
        asked.append((await recent.of(RUNTIME)).facts["asked"])
    assert asked == [1, 1, 2, 2, 3]


async def test_a_caller_who_goes_leaves_the_look_to_the_next() -> None:
    dependencies = Dependencies()
    recent = RecentReadiness(dependencies.look)
    dependencies.answers.clear()
    first, second = (asyncio.create_task(recent.of(RUNTIME)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    dependencies.answers.set()
    assert (await second).facts == {"asked": 2}
