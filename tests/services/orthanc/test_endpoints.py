"""Which of several Orthancs answers a read."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from services.errors import OrthancBusy, OrthancNotFound, OrthancUnavailable
from services.orthanc.client import OrthancClient, ReadClients
from services.orthanc.endpoints import Endpoint, Endpoints
from services.orthanc.frames import Fetch, OrthancFrames
from services.orthanc.transport import CircuitBreaker

KEYS = [f"{number:08x}-00000000-00000000-00000000-00000000" for number in range(300)]


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def endpoints(readers: int) -> tuple[Endpoints[str], list[CircuitBreaker], Clock]:
    clock = Clock()
    breakers = [CircuitBreaker(clock) for _ in range(readers + 1)]
    main, *others = (Endpoint(str(n), breaker) for n, breaker in enumerate(breakers))
    return Endpoints(main, others), breakers, clock


def preferred(several: Endpoints[str]) -> dict[str, str]:
    return {key: next(several.ordered(key)).connection for key in KEYS}


def open_breaker(breaker: CircuitBreaker) -> None:
    for _ in range(3):
        with pytest.raises(OrthancUnavailable), breaker.guarded():
            raise OrthancUnavailable


def test_instances_are_divided_among_readers_and_the_writer_answers_last() -> None:
    several, *_ = endpoints(3)
    counts = Counter(preferred(several).values())
    assert set(counts) == {"1", "2", "3"}
    assert min(counts.values()) > 60
    assert all([e.connection for e in several.ordered(key)][-1] == "0" for key in KEYS)
    alone, *_ = endpoints(0)
    assert set(preferred(alone).values()) == {"0"}


def test_only_the_instances_of_one_that_is_away_move_and_it_is_probed() -> None:
    several, breakers, clock = endpoints(3)
    before = preferred(several)
    open_breaker(breakers[2])
    during = preferred(several)
    moved = {key for key in KEYS if before[key] != during[key]}
    assert moved == {key for key in KEYS if before[key] == "2"}
    assert {during[key] for key in moved} == {"1", "3"}
    clock.now += 1
    assert preferred(several) == before


def test_answers_503_open_no_breaker_while_other_calls_succeed() -> None:
    clock = Clock()
    breaker = CircuitBreaker(clock)
    with breaker.guarded():
        pass
    for _ in range(10):
        with pytest.raises(OrthancBusy), breaker.guarded():
            raise OrthancBusy
    assert not breaker.is_open
    clock.now += 11
    for _ in range(3):
        with pytest.raises(OrthancBusy), breaker.guarded():
            raise OrthancBusy
    assert breaker.is_open


class Answers(httpx.AsyncBaseTransport):
    """Answers each call by the next of these; an exception is raised."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self._answers = list(answers)
        self.asked: list[str] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request.url.path)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def http(transport: httpx.AsyncBaseTransport) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=transport, base_url="http://orthanc.test")


async def read(client: OrthancClient) -> bytes:
    async with client.download(KEYS[0]) as chunks:
        return b"".join([chunk async for chunk in chunks])


async def test_a_file_comes_from_a_reader_and_without_it_from_the_writer() -> None:
    gone = httpx.ConnectError("refused")
    reader = Answers(httpx.Response(200, content=b"reader"), gone)
    writer = Answers(httpx.Response(200, content=b"writer"))
    async with http(reader) as of_reader, http(writer) as of_writer:
        client = OrthancClient(
            of_writer,
            readers=[Endpoint(ReadClients(of_reader, of_reader), CircuitBreaker(Clock()))],
        )
        assert [await read(client) for _ in range(6)] == [b"reader"] + [b"writer"] * 5
    # Three faults open its breaker.
    assert len(reader.asked) == 4


async def test_only_the_writer_knows_that_a_file_is_gone() -> None:
    """A reader may be behind: it does not have yet, or not any more, what the writer has."""
    behind, there = httpx.Response(404), httpx.Response(200, content=b"there")
    for answer, expected in (
        (there, b"there"),
        (behind, OrthancNotFound),
        (httpx.ConnectError("refused"), OrthancUnavailable),
    ):
        reader, writer = Answers(behind), Answers(answer)
        async with http(reader) as of_reader, http(writer) as of_writer:
            client = OrthancClient(of_writer, readers=[Endpoint(ReadClients(of_reader, of_reader))])
            if isinstance(expected, bytes):
                assert await read(client) == expected
            else:
                with pytest.raises(expected):
                    await read(client)
        assert (len(reader.asked), len(writer.asked)) == (1, 1)


async def test_frames_are_asked_of_the_writer_before_they_are_gone() -> None:
    def behind(_path: str) -> bytes:
        raise OrthancNotFound

    endpoints = Endpoints[Fetch](Endpoint(lambda _: b"frame"), [Endpoint(behind)])
    with ThreadPoolExecutor(1) as threads:
        assert await OrthancFrames(endpoints, threads).get(KEYS[0], 0, "raw", bytes) == b"frame"


async def test_the_breaker_guards_files_and_archives() -> None:
    away = Answers(httpx.ConnectError("refused"))
    async with http(away) as of_orthanc:
        client = OrthancClient(of_orthanc, breaker=CircuitBreaker(Clock()))
        for _ in range(3):
            with pytest.raises(OrthancUnavailable):
                await read(client)
        with pytest.raises(OrthancUnavailable) as refused:
            async with client.instance_file(KEYS[0]):
                pass
    assert refused.value.detail == "circuit breaker is open"
    assert len(away.asked) == 3


async def test_a_call_that_orthanc_is_too_busy_for_is_repeated_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("services.orthanc.client._BUSY_SECONDS", 0)
    busy = Answers(httpx.Response(503), httpx.Response(200, json={"Version": "1.12.11"}))
    async with http(busy) as of_orthanc:
        assert (await OrthancClient(of_orthanc).system()).version == "1.12.11"
    always = Answers(httpx.Response(503))
    async with http(always) as of_orthanc:
        with pytest.raises(OrthancBusy):
            await OrthancClient(of_orthanc).system()
    assert len(always.asked) == 2
