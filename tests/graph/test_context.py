import asyncio
from collections.abc import Sequence

import pytest

from graph.context import AccessLog, BatchLoader, Level
from services.errors import DatabaseUnavailable
from services.query import turns
from services.query.turns import CooperativeExecution

PATIENT = {"_id": "p1"}
STUDY = {"_id": "s1", "orthancPatientId": "p1"}
SERIES = {"_id": "x", "orthancStudyId": "s2", "orthancPatientId": "p2"}


def test_documents_of_every_level_say_whom_they_are_about() -> None:
    accesses = AccessLog()
    accesses.add([PATIENT], "Patient")
    assert (accesses.patient_ids, accesses.study_ids) == ({"p1"}, set())
    accesses.add([STUDY], "Study")
    accesses.add([SERIES], "Series")
    assert (accesses.patient_ids, accesses.study_ids) == ({"p1", "p2"}, {"s1", "s2"})


@pytest.mark.parametrize(
    ("document", "level"),
    [
        ({"_id": "s1"}, "Study"),
        ({"_id": "x", "orthancStudyId": "s2"}, "Series"),
        ({"_id": "x", "orthancPatientId": "p2"}, "Series"),
        ({"_id": "x", "orthancPatientId": "p2"}, "Instance"),
    ],
)
def test_a_document_that_says_not_whose_it_is_passes_for_nobody(
    document: dict[str, str], level: Level
) -> None:
    accesses = AccessLog()
    with pytest.raises(KeyError):
        accesses.add([document], level)
    assert document["_id"] not in accesses.patient_ids | accesses.study_ids


def test_what_was_drained_is_not_there_any_more() -> None:
    accesses = AccessLog(fields=["study", "study"], searches=["study"], number_of_objects=3)
    accesses.add([STUDY], "Study")
    accesses.minted["Frame.url"] += 2
    accesses.refusals.append(("study", "FORBIDDEN"))
    drained = accesses.drain()
    assert (drained.fields, drained.study_ids, drained.number_of_objects) == (
        ["study", "study"],
        {"s1"},
        3,
    )
    assert (drained.minted, drained.refusals) == ({"Frame.url": 2}, [("study", "FORBIDDEN")])
    assert drained.searches == ["study"]
    assert accesses == AccessLog(viewed={"p1", "s1"})


def test_a_view_is_new_once_for_each_study() -> None:
    accesses = AccessLog()
    accesses.add([STUDY], "Study")
    assert accesses.drain().is_new_view
    accesses.add([STUDY], "Study")
    assert not accesses.drain().is_new_view
    accesses.add([SERIES], "Series")
    assert accesses.drain().is_new_view


def test_nobody_seen_is_no_view() -> None:
    assert not AccessLog(fields=["server"], number_of_objects=1).is_new_view


async def test_those_who_wait_for_one_value_go_on_in_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "TURN_SECONDS", 0.0)
    loads: list[list[str]] = []

    async def load(keys: list[str]) -> Sequence[str]:
        loads.append(keys)
        return [key.upper() for key in keys]

    loader = BatchLoader(load, CooperativeExecution())
    values: list[str] = []

    async def want(key: str) -> None:
        values.append(await loader.load(key))

    wanting = [asyncio.create_task(want(key)) for key in ("a", "b") for _ in range(20)]
    in_iterations = []
    while not all(task.done() for task in wanting):
        before = len(values)
        await asyncio.sleep(0)
        in_iterations.append(len(values) - before)
    assert max(in_iterations) == 1
    assert values == ["A"] * 20 + ["B"] * 20
    # What is known is at hand, and nothing is loaded twice.
    assert await loader.load_many(["b", "c", "a"]) == ["B", "C", "A"]
    assert loads == [["a", "b"], ["c"]]


async def test_a_caller_who_gives_up_takes_the_value_from_nobody_else() -> None:
    loads: list[list[str]] = []

    async def load(keys: list[str]) -> Sequence[str]:
        loads.append(keys)
        return keys

    loader = BatchLoader(load, CooperativeExecution())
    waiting = [asyncio.ensure_future(loader.load(key)) for key in ("a", "a", "b")]
    waiting[0].cancel()
    waiting[2].cancel()
    assert await waiting[1] == "a"
    assert loads == [["a"]]
    # Whoever asks for what was given up gets it.
    assert await loader.load("b") == "b"


async def test_a_load_that_fails_is_told_to_all_who_wait() -> None:
    async def load(_keys: list[str]) -> Sequence[str]:
        raise DatabaseUnavailable

    loader = BatchLoader(load, CooperativeExecution())
    asked = [loader.load(key) for key in ("a", "a", "b")]
    outcomes = await asyncio.gather(*asked, return_exceptions=True)
    assert [type(one) for one in outcomes] == [DatabaseUnavailable] * 3


async def test_nobody_waits_for_a_load_that_was_cancelled() -> None:
    async def load(_: list[int]) -> list[int]:
        raise asyncio.CancelledError

    loader = BatchLoader(load, CooperativeExecution())
    with pytest.raises(asyncio.CancelledError):
        await loader.load(1)


async def test_a_load_of_too_few_values_is_told_to_all_who_wait() -> None:
    async def load(_: list[int]) -> list[int]:
        return []

    loader = BatchLoader(load, CooperativeExecution())
    with pytest.raises(ValueError, match="shorter"):
        await loader.load(1)
