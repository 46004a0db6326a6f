"""`uploadProgress`: how far an upload is, by WebSocket and event stream, for its sender alone."""

import asyncio
import io
import json
import zipfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import connect

from models import UploadProgressDocument
from services.auth.roles import Principal, Role
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.ingest.progress import UploadCounts, UploadProgressRecords
from services.runtime import open_runtime
from tests.databases import lent_database
from tests.patience import PATIENCE_SECONDS
from tests.real.conftest import emptied
from tests.real.sync_stage import instance_bytes
from tests.servers import RunningServer, run_server, settings_on
from tests.tokens import give_tokens

UPLOAD_ID = "6a0f1f3e-upload"
UPLOAD = """mutation ($files: [Upload!]!) { uploadDicom(files: $files) {
  results { fileName status } } }"""
PROGRESS = """subscription ($id: ID!) {
  uploadProgress(uploadId: $id) { received checked stored failed } }"""
NOTHING = {"received": 0, "checked": 0, "stored": 0, "failed": 0}

Served = tuple[RunningServer, dict[str, str]]


@pytest.fixture(scope="module")
async def served(
    mongodb: EmbeddedMongod, orthanc: EmbeddedOrthanc, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Served]:
    """A server and its tokens by names."""
    async with lent_database(mongodb) as name:
        folder = tmp_path_factory.mktemp("progress")
        settings = settings_on(mongodb, await emptied(orthanc), folder, mongodb_database=name)
        tokens = give_tokens(settings, anna=Role.UPLOADER, ben=Role.ADMIN, eve=Role.VIEWER)
        async with open_runtime(settings) as runtime, run_server(settings, runtime) as running:
            yield running, tokens


def archive(*files: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as opened:
        for number, content in enumerate(files):
            opened.writestr(f"{number}.dcm", content)
    return packed.getvalue()


async def upload(served: Served, *files: bytes, **headers: str) -> httpx.Response:
    """Send files as anna."""
    server, tokens = served
    asked = {"query": UPLOAD, "variables": {"files": [None] * len(files)}}
    places = {str(n): [f"variables.files.{n}"] for n in range(len(files))}
    return await server.http.post(
        "/graphql",
        headers={"GraphQL-Preflight": "1", "Authorization": f"Bearer {tokens['anna']}", **headers},
        data={"operations": json.dumps(asked), "map": json.dumps(places)},
        files=[(str(n), (f"{n}.dcm", content)) for n, content in enumerate(files)],
    )


@asynccontextmanager
async def by_websocket(served: Served, name: str) -> AsyncIterator[AsyncIterator[Any]]:
    server, tokens = served
    protocols: Any = ["graphql-transport-ws"]
    url = server.url.replace("http", "ws") + "/graphql"
    async with connect(url, subprotocols=protocols, proxy=None) as socket:
        payload = {"Authorization": f"Bearer {tokens[name]}"}
        await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        start = {"query": PROGRESS, "variables": {"id": UPLOAD_ID}}
        await socket.send(json.dumps({"id": "1", "type": "subscribe", "payload": start}))

        async def events() -> AsyncIterator[Any]:
            async for text in socket:
                message = json.loads(text)
                if message["type"] != "ping":
                    yield message["payload"]

        yield events()


@asynccontextmanager
async def by_event_stream(
    served: Served, name: str, upload_id: str = UPLOAD_ID
) -> AsyncIterator[AsyncIterator[Any]]:
    server, tokens = served
    headers = {"Authorization": f"Bearer {tokens[name]}", "Accept": "text/event-stream"}
    asked = {"query": PROGRESS, "variables": {"id": upload_id}}
    async with server.http.stream("POST", "/graphql", json=asked, headers=headers) as response:

        async def events() -> AsyncIterator[Any]:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    yield json.loads(line.removeprefix("data: "))

        yield events()


async def until(events: AsyncIterator[Any], wanted: dict[str, int]) -> list[dict[str, int]]:
    """Return what is told, up to what is wanted."""
    told = []
    async with asyncio.timeout(PATIENCE_SECONDS):
        async for event in events:
            assert isinstance(event, dict), event
            told.append(event["data"]["uploadProgress"])
            if told[-1] == wanted:
                return told
    raise AssertionError(told)


async def test_its_sender_sees_an_upload_of_several_requests_to_its_end(served: Served) -> None:
    files = [instance_bytes(90, 1, number) for number in range(5)]
    async with by_websocket(served, "anna") as events:
        assert await until(events, NOTHING) == [NOTHING]
        response = await upload(
            served, archive(*files[:3]), b"no DICOM", **{"Upload-Id": UPLOAD_ID}
        )
        assert len(response.json()["data"]["uploadDicom"]["results"]) == 4
        first = {"received": 4, "checked": 4, "stored": 3, "failed": 1}
        told = await until(events, first)
        await upload(served, *files[2:], **{"Upload-Id": UPLOAD_ID})
        both = {"received": 7, "checked": 7, "stored": 6, "failed": 1}
        told += await until(events, both)
    for name in NOTHING:
        counts = [one[name] for one in told]
        assert counts == sorted(counts)
    # Whoever comes later begins with what is; others, be they administrators, learn nothing.
    async with by_event_stream(served, "anna") as events:
        assert await until(events, both) == [both]
    async with by_event_stream(served, "ben") as events:
        assert await until(events, NOTHING) == [NOTHING]
    async with by_event_stream(served, "anna", "an-id-of-nobody") as events:
        assert await until(events, NOTHING) == [NOTHING]


@pytest.mark.parametrize(
    ("name", "upload_id", "code"),
    [("eve", UPLOAD_ID, "FORBIDDEN"), ("anna", "short", "INVALID_INPUT")],
)
async def test_who_may_not_follow_is_told_why(
    served: Served, name: str, upload_id: str, code: str
) -> None:
    async with by_event_stream(served, name, upload_id) as events:
        event = await anext(events)
    assert [error["extensions"]["code"] for error in event["errors"]] == [code]


async def test_an_upload_without_an_id_leaves_nothing_and_a_bad_id_is_refused(
    served: Served,
) -> None:
    uploads = served[0].runtime.database[UploadProgressDocument.Settings.name]
    before = await uploads.count_documents({})
    response = await upload(served, instance_bytes(91, 1, 1))
    assert response.json()["data"]["uploadDicom"]["results"][0]["status"] == "STORED"
    response = await upload(served, instance_bytes(91, 1, 2), **{"Upload-Id": "anna:upload"})
    assert (response.status_code, response.json()["errors"][0]["extensions"]) == (
        400,
        {"code": "INVALID_INPUT"},
    )
    assert await uploads.count_documents({}) == before


async def test_another_process_reads_what_is_counted_while_it_happens(served: Served) -> None:
    database = served[0].runtime.database
    anna = Principal("anna", Role.UPLOADER)
    elsewhere = UploadProgressRecords(database)
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        aclosing(elsewhere.follow("by-two-processes", anna)) as changes,
    ):
        assert await anext(changes) == UploadCounts()
        async with UploadProgressRecords(database).recorded("by-two-processes", anna) as counts:
            counts.received = 2
            assert await anext(changes) == UploadCounts(received=2)
            counts.checked = counts.stored = 1
            assert await anext(changes) == UploadCounts(received=2, checked=1, stored=1)
            counts.failed = 1
        assert await anext(changes) == UploadCounts(received=2, checked=1, stored=1, failed=1)
    stored = await database["uploadProgress"].find_one({"_id": "by-two-processes:anna"})
    assert stored is not None
    assert stored.keys() == {"_id", "received", "checked", "stored", "failed", "expiresAt"}


async def test_what_is_counted_during_the_last_write_is_written_too(served: Served) -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    class Slow(UploadProgressRecords):
        async def _add(self, key: str, *, since: UploadCounts, now: UploadCounts) -> None:
            begun.set()
            await may_end.wait()
            await super()._add(key, since=since, now=now)

    database = served[0].runtime.database
    anna = Principal("anna", Role.UPLOADER)
    async with (
        asyncio.timeout(PATIENCE_SECONDS),
        Slow(database).recorded("slowly-written", anna) as counts,
    ):
        counts.received = 1
        await begun.wait()
        counts.stored = 1
        asyncio.get_running_loop().call_soon(may_end.set)
    async with aclosing(UploadProgressRecords(database).follow("slowly-written", anna)) as changes:
        assert await anext(changes) == UploadCounts(received=1, stored=1)
