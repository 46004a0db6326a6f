import asyncio
from collections.abc import AsyncGenerator

import pytest

from graph.http import event_stream
from graph.http.event_stream import accepts_events, accepts_json, until_stopping


@pytest.mark.parametrize(
    ("accept", "events", "json"),
    [
        ("text/event-stream", True, False),
        ("TEXT/EVENT-STREAM; charset=utf-8", True, False),
        ("application/json, text/event-stream", True, True),
        ("application/graphql-response+json, text/event-stream;q=0.5", True, True),
        ("text/event-stream, */*;q=0.1", True, True),
        ("text/event-stream;q=0", False, False),
        ("*/*", False, True),
        (None, False, True),
        ("nonsense", False, True),
    ],
)
def test_what_a_client_accepts(accept: str | None, events: bool, json: bool) -> None:
    assert (accepts_events(accept), accepts_json(accept)) == (events, json)


class Source:
    """Two events, then silence; says when it is closed."""

    is_closed = False

    async def events(self) -> AsyncGenerator[str, None]:
        try:
            yield "one"
            yield "two"
            await asyncio.Event().wait()
        finally:
            self.is_closed = True


async def test_a_stream_ends_when_the_server_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_stream, "_LOOK_SECONDS", 0.001)
    source, looks = Source(), 0

    def is_stopping() -> bool:
        nonlocal looks
        looks += 1
        return looks > 5

    assert [one async for one in until_stopping(source.events(), is_stopping)] == ["one", "two"]
    assert source.is_closed


async def test_a_stream_that_is_cancelled_closes_its_source() -> None:
    source = Source()

    async def read() -> None:
        async for _ in until_stopping(source.events(), lambda: False):
            pass

    reading = asyncio.create_task(read())
    while not reading.done() and not source.is_closed:
        await asyncio.sleep(0)
        reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    assert source.is_closed


async def test_a_stream_that_ends_or_fails_does_so() -> None:
    async def ending() -> AsyncGenerator[str, None]:
        yield "one"

    async def failing() -> AsyncGenerator[str, None]:
        yield "one"
        raise ValueError("broken")

    assert [one async for one in until_stopping(ending(), lambda: False)] == ["one"]
    with pytest.raises(ValueError, match="broken"):
        [one async for one in until_stopping(failing(), lambda: False)]
