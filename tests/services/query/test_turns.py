"""Those who share turns go on together; everybody else comes between the turns."""

import asyncio

import pytest

from services.query import turns
from services.query.turns import CooperativeExecution


async def test_nobody_waits_while_a_turn_lasts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 60.0)
    order: list[str] = []
    asyncio.get_running_loop().call_soon(order.append, "other")
    await CooperativeExecution().yield_to_loop()
    assert order == []


async def test_all_who_waited_go_on_in_the_next_turn() -> None:
    now = 0.0
    shared = CooperativeExecution(lambda: now)
    now = 1.0
    order: list[str] = []

    async def work(name: str) -> None:
        await shared.yield_to_loop()
        order.append(name)

    async def other() -> None:
        order.append("other")

    await asyncio.gather(work("first"), work("second"), other())
    assert order == ["other", "first", "second"]


async def test_one_operation_works_in_an_iteration_however_many_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    worked: list[int] = []

    async def work(number: int) -> None:
        await CooperativeExecution().map(lambda _: worked.append(number), range(20))

    working = [asyncio.create_task(work(number)) for number in range(8)]
    in_iterations = []
    while not all(task.done() for task in working):
        before = len(worked)
        await asyncio.sleep(0)
        in_iterations.append(len(worked) - before)
    assert max(in_iterations) == 1
    # And nobody works twice before all others had a turn.
    assert worked == [*range(8)] * 20
