"""Orthanc closes kept connections without a word, perhaps while the next request is on its way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from services.errors import OrthancOutcomeUnknown, OrthancUnavailable
from services.orthanc.client import OrthancClient
from services.orthanc.transport import FAULTS, CircuitBreaker, open_http_client

INSTANCE = "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af"
BODY = b'{"Changes": [], "Last": 7, "Done": true}'
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


class ClosingOrthanc:
    """Closes a connection at its second request, after `told` of the answer."""

    def __init__(
        self, told: bytes = b"", *, dies: bool = False, answers_first: bool = True
    ) -> None:
        self.asked: list[str] = []
        self._told = told
        self._dies = dies
        self._answers_first = answers_first
        self._server: asyncio.Server | None = None

    @asynccontextmanager
    async def client(self, breaker: CircuitBreaker | None = None) -> AsyncIterator[OrthancClient]:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        async with self._server, open_http_client(url, "", "") as http:
            yield OrthancClient(http, breaker=breaker)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError):
            if self._answers_first:
                await self._read(reader)
                body = b"[]" if "bulk" in self.asked[-1] else BODY
                writer.write(ANSWER % (len(body), body))
            await self._read(reader)
            writer.write(self._told)
            if self._dies and self._server is not None:
                self._server.close()
        writer.close()

    async def _read(self, reader: asyncio.StreamReader) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        self.asked.append(" ".join(head.split(" ", 2)[:2]))
        if "Content-Length: " in head:
            await reader.readexactly(int(head.partition("Content-Length: ")[2].split("\r\n")[0]))


async def read_feed(client: OrthancClient) -> None:
    await client.newest_change()


async def read_files(client: OrthancClient) -> None:
    await client.stored_files([INSTANCE])


@pytest.mark.parametrize("read", [read_feed, read_files])
async def test_what_only_reads_is_asked_again_at_once(
    read: Callable[[OrthancClient], Awaitable[None]],
) -> None:
    orthanc = ClosingOrthanc()
    async with orthanc.client() as client:
        await read(client)
        await read(client)
    assert len(orthanc.asked) == 3


async def test_what_changes_something_is_asked_once() -> None:
    orthanc = ClosingOrthanc()
    async with orthanc.client() as client:
        await read_feed(client)
        with pytest.raises(OrthancOutcomeUnknown):
            await client.delete("instances", INSTANCE)
    assert orthanc.asked == ["GET /changes?last", f"DELETE /instances/{INSTANCE}"]


async def test_an_answer_that_began_is_not_asked_for_again() -> None:
    orthanc = ClosingOrthanc(told=b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    async with orthanc.client() as client:
        await read_feed(client)
        with pytest.raises(OrthancOutcomeUnknown):
            await read_feed(client)
    assert len(orthanc.asked) == 2


async def test_a_new_connection_that_breaks_is_no_stale_one() -> None:
    orthanc = ClosingOrthanc(answers_first=False)
    async with orthanc.client() as client:
        with pytest.raises(OrthancOutcomeUnknown):
            await read_feed(client)
    assert len(orthanc.asked) == 1


async def test_an_orthanc_that_dies_of_a_request_is_told_as_one_fault_of_that_request() -> None:
    breaker = CircuitBreaker()
    orthanc = ClosingOrthanc(dies=True)
    async with orthanc.client(breaker) as client:
        await read_feed(client)
        for faults in range(1, FAULTS + 1):
            with pytest.raises(OrthancUnavailable) as raised:
                await read_feed(client)
            assert isinstance(raised.value, OrthancOutcomeUnknown) is (faults == 1)
            assert breaker.is_open is (faults == FAULTS)
    assert len(orthanc.asked) == 2


async def test_a_file_is_asked_for_again_too() -> None:
    orthanc = ClosingOrthanc()
    async with orthanc.client() as client:
        await read_feed(client)
        async with client.instance_file(INSTANCE) as chunks:
            assert b"".join([chunk async for chunk in chunks]) == BODY
    assert len(orthanc.asked) == 3
