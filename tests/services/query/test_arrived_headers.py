"""Headers that wait to be made, bounded in bytes."""

import asyncio
from dataclasses import replace

from services.index.record import IndexRecord
from services.query.arrived_headers import ArrivedHeaders
from tests.services.index.test_record import record

SERIES = ("a" * 44, "b" * 44)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def arrival(number: int, *, series: int = 0, beginning: bytes | None = bytes(1000)) -> IndexRecord:
    one = record()
    ids = replace(one.ids, series=SERIES[series], instance=f"{number}")
    return replace(one, ids=ids, beginning=beginning)


def test_what_waits_longest_goes_first_and_long_headers_are_not_kept() -> None:
    clock = Clock()
    headers = ArrivedHeaders(max_bytes=5_000, clock=clock)
    headers.add([arrival(1), arrival(2), arrival(3, beginning=None), arrival(1)])
    revision = record().revision
    assert headers.find(SERIES[0], ("1", revision)) is not None
    assert headers.find(SERIES[0], ("1", "another")) is None
    assert headers.find(SERIES[0], ("3", revision)) is None
    assert 2_000 < headers.size_bytes < 4_000
    clock.now = 1
    headers.add([arrival(4, series=1)])
    clock.now = 2
    assert headers.quiet(1.5) == [SERIES[0]]
    headers.add([arrival(5, series=1)])
    assert headers.quiet(0) == [SERIES[1]]
    headers.discard(SERIES[1])
    headers.discard("unknown")
    assert headers.size_bytes == 0


def test_of_two_files_in_one_revision_none_is_believed() -> None:
    headers = ArrivedHeaders()
    key = ("1", record().revision)
    headers.add([arrival(1), arrival(1, beginning=b"another")])
    assert headers.find(SERIES[0], key) is None
    assert headers.size_bytes == 0


async def test_waiting_ends_with_the_first_arrival() -> None:
    headers = ArrivedHeaders()
    waiting = asyncio.create_task(headers.wait())
    await asyncio.sleep(0)
    headers.add([arrival(1, beginning=None)])
    await asyncio.sleep(0)
    assert not waiting.done()
    headers.add([arrival(1)])
    await asyncio.wait_for(waiting, 5)
