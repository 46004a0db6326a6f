"""Faults at the socket that a real Orthanc can't be brought to on demand."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from services import errors
from services.orthanc.answers import StoreAnswer
from services.orthanc.files import OrthancFiles, open_orthanc_files

STORED = (
    b'{"ID": "i", "ParentPatient": "p", "ParentSeries": "s", "ParentStudy": "t",'
    b' "Path": "/instances/i", "Status": "Success"}'
)


def answer(status: int, body: bytes = b"") -> bytes:
    return b"HTTP/1.1 %d Told\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


@asynccontextmanager
async def told(reply: Callable[[bytes], bytes]) -> AsyncIterator[tuple[OrthancFiles, list[bytes]]]:
    """Answer each request with bytes, then close; keep what was asked."""
    requests: list[bytes] = []

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(3)
        requests.append(head + body)
        writer.write(reply(body))
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_server(converse, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with (
        server,
        open_orthanc_files(f"http://127.0.0.1:{port}", "user", "secret") as files,
    ):
        yield files, requests


async def test_a_file_is_sent_with_its_size_and_credentials_uncompressed() -> None:
    async with told(lambda _: answer(200, STORED)) as (files, requests):
        found = await files.in_thread(lambda: files.store([b"a", b"bc"], 3))
    assert found == StoreAnswer("i", "t", "s", already_stored=False)
    (request,) = requests
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")
    assert lines[0] == "POST /instances HTTP/1.1"
    assert "Content-Length: 3" in lines
    assert "Accept-Encoding: identity" in lines
    assert "Authorization: Basic dXNlcjpzZWNyZXQ=" in lines
    assert not any(line.lower().startswith("transfer-encoding") for line in lines)
    assert body == b"abc"


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (302, errors.OrthancError),
        (400, errors.OrthancRefused),
        (401, errors.OrthancAuthenticationFailed),
        (500, errors.OrthancError),
        (503, errors.OrthancBusy),
        (507, errors.OrthancFull),
    ],
)
async def test_a_status_of_orthanc_is_an_error_of_ours(
    status: int, error: type[errors.OrthancError]
) -> None:
    async with told(lambda _: answer(status, b"{}")) as (files, _):
        with pytest.raises(errors.OrthancError) as raised:
            await files.in_thread(lambda: files.store([b"abc"], 3))
    assert type(raised.value) is error


@pytest.mark.parametrize(
    "reply",
    [b"", b"HTTP/1.1 200 OK\r\nContent-Le", answer(200, STORED)[:-20], answer(200, STORED[:40])],
    ids=["nothing", "half a head", "half a body", "half a JSON"],
)
async def test_an_answer_that_breaks_off_leaves_the_outcome_unknown(reply: bytes) -> None:
    async with told(lambda _: reply) as (files, requests):
        with pytest.raises(errors.OrthancOutcomeUnknown):
            await files.in_thread(lambda: files.store([b"abc"], 3))
        assert len(requests) == 1


async def test_an_orthanc_that_is_away_did_nothing() -> None:
    async with open_orthanc_files("http://127.0.0.1:1", "", "") as files:
        with pytest.raises(errors.OrthancUnavailable) as raised:
            await files.in_thread(lambda: files.store([b"abc"], 3))
    assert not isinstance(raised.value, errors.OrthancOutcomeUnknown)
