"""Bodies of requests: checked before they are read, cut when they stop, left when refused."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Mapping

import pytest
from pydantic import SecretStr

from services.auth.roles import Role
from services.embedded.mongod import EmbeddedMongod
from services.frames.signing import generate_key
from services.runtime import open_runtime
from services.settings import Settings
from tests.patience import PATIENCE_SECONDS
from tests.real.raw_requests import (
    RawAnswer,
    answer_to_half,
    connected,
    half_sent,
    head,
    read_answer,
)
from tests.servers import RunningServer, run_server
from tests.tokens import give_tokens

_GIB = 1024**3
_MIB = 1024**2
JSON = {"Content-Type": "application/json"}
FORM = {"Content-Type": "multipart/form-data; boundary=b"}
PREFLIGHT = {"GraphQL-Preflight": "1"}
HUGE = {"Content-Length": str(_GIB)}
SOCKETS_MAX_BYTES = 32 * _MIB
"""What the buffers of both ends of a loopback connection may hold, and some more."""


@pytest.fixture(scope="module")
def settings(mongodb: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=tmp_path_factory.mktemp("bodies"),
        mongodb_url=SecretStr(mongodb.url),
        mongodb_database=f"test_{secrets.token_hex(6)}",
        enable_pacs_integration=False,
        frame_url_keys=SecretStr(generate_key()),
        upload_max_bytes=_MIB,
        upload_idle_seconds=0.3,
    )


@pytest.fixture(scope="module")
def token(settings: Settings) -> str:
    """The token of a viewer."""
    return give_tokens(settings, viewer=Role.VIEWER)["viewer"]


@pytest.fixture(scope="module")
async def server(settings: Settings, token: str) -> AsyncIterator[RunningServer]:
    """A server that asks for tokens; these tests store nothing."""
    assert token
    async with open_runtime(settings) as runtime, run_server(settings, runtime) as running:
        yield running
        await runtime.database.client.drop_database(settings.mongodb_database)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def code_of(answer: dict[str, list[dict[str, dict[str, str]]]]) -> str:
    return answer["errors"][0]["extensions"]["code"]


@pytest.mark.parametrize("credential", [{}, bearer("ogql_" + "x" * 43), {"Authorization": "Basic"}])
async def test_a_query_without_valid_credential_is_refused_before_its_body_is_read(
    server: RunningServer, credential: dict[str, str]
) -> None:
    headers = JSON | credential | {"Content-Length": "1000"}
    status, answer = await answer_to_half(server, "/graphql", headers, b'{"query": ')
    assert (status, code_of(answer)) == (401, "UNAUTHENTICATED")


async def test_a_query_with_a_credential_is_answered(server: RunningServer, token: str) -> None:
    response = await server.http.post(
        "/graphql", json={"query": "{ server { storage } }"}, headers=bearer(token)
    )
    assert response.json() == {"data": {"server": {"storage": "orthanc-pacs"}}}


async def test_a_refusal_has_the_media_type_that_was_asked_for(server: RunningServer) -> None:
    wanted = "application/graphql-response+json"
    response = await server.http.post("/graphql", json={}, headers={"Accept": wanted})
    assert (response.status_code, response.headers["content-type"]) == (401, wanted)


async def test_a_query_that_says_it_is_too_large_is_refused_before_its_body_is_read(
    server: RunningServer, token: str
) -> None:
    too_much = server.runtime.settings.graphql_body_max_bytes + 1
    headers = JSON | bearer(token) | {"Content-Length": str(too_much)}
    status, answer = await answer_to_half(server, "/graphql", headers)
    assert (status, code_of(answer)) == (413, "LIMIT_EXCEEDED")


async def test_a_body_of_another_media_type_is_refused_before_it_is_read(
    server: RunningServer, token: str
) -> None:
    headers = {"Content-Type": "text/plain"} | bearer(token) | {"Content-Length": "1000"}
    status, answer = await answer_to_half(server, "/graphql", headers)
    assert (status, code_of(answer)) == (415, "UNSUPPORTED_MEDIA_TYPE")


async def test_a_query_that_stops_arriving_is_cut(server: RunningServer, token: str) -> None:
    headers = JSON | bearer(token) | {"Content-Length": "1000"}
    status, answer = await answer_to_half(server, "/graphql", headers, b'{"query": ')
    assert (status, code_of(answer)) == (408, "UPLOAD_IDLE")


async def test_a_query_whose_sender_goes_is_no_fault_of_the_server(
    server: RunningServer, token: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = JSON | bearer(token) | {"Content-Length": "1000"}
    with caplog.at_level(logging.INFO, "orthanc_graphql.access"):
        async with half_sent(server, "/graphql", headers, b'{"query": '):
            pass
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not caplog.records:  # noqa: ASYNC110  # the log gives no notice
                await asyncio.sleep(0.01)
    assert [record.getMessage().split()[:3] for record in caplog.records] == [
        ["POST", "/graphql", "400"]
    ]


REFUSED: Mapping[str, tuple[str, dict[str, str], int]] = {
    "query without credential": ("/graphql", JSON, 401),
    "upload without credential": ("/graphql", FORM | PREFLIGHT, 401),
    "upload without preflight": ("/graphql", FORM, 403),
    "REST upload without credential": ("/api/dicom/upload", FORM, 401),
    "notice without secret": ("/internal/orthanc-events", JSON, 403),
    "no such route": ("/nowhere", FORM, 404),
    "no such method": ("/healthz", FORM, 405),
}


async def send_all(server: RunningServer, path: str, headers: dict[str, str]) -> int:
    """Send a GiB without a look at the answer; answers how many bytes went out."""
    sent = 0
    chunk = bytes(256 * 1024)
    async with connected(server) as (_, writer):
        writer.write(head(path, headers | HUGE))
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while sent < _GIB:
                    writer.write(chunk)
                    await writer.drain()
                    sent += len(chunk)
        except ConnectionError:
            return sent
    return sent


async def answer_while_sending(
    server: RunningServer, path: str, headers: dict[str, str]
) -> RawAnswer:
    """Send a GiB until the answer is there."""
    chunk = bytes(64 * 1024)
    async with connected(server) as (reader, writer):
        writer.write(head(path, headers | HUGE))
        answer = asyncio.create_task(read_answer(reader))
        while not answer.done():
            writer.write(chunk)
            await asyncio.wait([answer], timeout=0.001)
        return await answer


@pytest.mark.parametrize("name", REFUSED)
async def test_who_sends_on_reads_why_it_was_refused_and_that_the_connection_ends(
    server: RunningServer, name: str
) -> None:
    path, headers, status = REFUSED[name]
    answer = await answer_while_sending(server, path, headers)
    assert (answer.status, answer.headers["connection"]) == (status, "close")


@pytest.mark.parametrize("name", REFUSED)
async def test_who_waits_to_be_asked_for_a_body_is_refused_without(
    server: RunningServer, name: str
) -> None:
    path, headers, status = REFUSED[name]
    waiting = headers | HUGE | {"Expect": "100-continue"}
    async with half_sent(server, path, waiting) as reader:
        answer = await read_answer(reader)
    assert (answer.status, answer.headers["connection"]) == (status, "close")


async def test_the_rest_of_a_body_that_is_refused_is_not_read(
    server: RunningServer, token: str
) -> None:
    # Nobody who is known, and somebody whose body is too large.
    sent = await asyncio.gather(
        *(
            send_all(server, "/graphql", kind | credential)
            for kind in (JSON, FORM | PREFLIGHT)
            for credential in ({}, bearer(token))
        )
    )
    assert max(sent) < SOCKETS_MAX_BYTES


async def test_a_sender_who_was_refused_and_stops_is_let_go_at_once(server: RunningServer) -> None:
    body = bytes(300_000)
    headers = FORM | {"Content-Length": str(len(body))}
    async with half_sent(server, "/graphql", headers, body) as reader:
        await read_answer(reader)
        # The end of the stream, and no reset, which might have destroyed the answer.
        assert await reader.read() == b""


async def test_a_body_that_was_read_keeps_the_connection(server: RunningServer, token: str) -> None:
    body = b'{"query": "{ nothing }"}'
    request = head("/graphql", JSON | bearer(token) | {"Content-Length": str(len(body))}) + body
    async with connected(server) as (reader, writer):
        for _ in range(2):
            writer.write(request)
            answer = await read_answer(reader)
            assert (answer.status, answer.headers.get("connection")) == (200, None)
