"""MongoDB without a primary, stopped, killed and slow, under queries, uploads and arrivals.

FAULT_SECONDS sets how long MongoDB is out of order, and lets the recovery be measured.
"""

import asyncio
import json
import operator
import os
import secrets
import signal
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from pydantic import SecretStr
from pymongo import AsyncMongoClient, uri_parser

from services import database
from services.database import open_database, translated_database_faults
from services.embedded.mongod import EmbeddedMongod, run_mongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.errors import DatabaseUnavailable
from services.runtime import open_runtime
from services.settings import Settings
from services.sync.follower import FeedCursor, FeedPosition
from tests.patience import PATIENCE_SECONDS
from tests.real.slow_proxy import SlowProxy, run_slow_proxy
from tests.real.steady_load import steady
from tests.real.sync_stage import eventually, instance_bytes, modality_client, open_stage, running
from tests.servers import RunningServer, run_server

FAULT_SECONDS = float(os.environ.get("FAULT_SECONDS", "1"))
LATENCY_SECONDS = 3
RECOVERY_SECONDS = 15 if "FAULT_SECONDS" in os.environ else PATIENCE_SECONDS
_STEPPED_DOWN_SECONDS = max(5, round(FAULT_SECONDS))
"""Long enough for `/api/status` to be asked meanwhile."""

_HEALTH_SECONDS = 5

TREE = """{ studies { totalCount nodes { numberOfInstances
  series { instances { sopInstanceUID frames { url } } } } } }"""
UPLOAD = """mutation ($files: [Upload!]!) { uploadDicom(files: $files) {
  results { status error { code message } instance { orthancInstanceId } } } }"""

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stage:
    """A server on a MongoDB of its own, and Orthanc as a modality sees it."""

    mongod: EmbeddedMongod
    proxy: SlowProxy
    server: RunningServer
    modality: httpx.AsyncClient

    async def query(self, _number: int = 0) -> Answer:
        """Ask for a whole tree."""
        return await self._answer(json={"query": TREE})

    async def upload(self, number: int) -> Answer:
        """Send a new file as a person does."""
        operation = json.dumps({"query": UPLOAD, "variables": {"files": [None]}})
        return await self._answer(
            headers={"GraphQL-Preflight": "1"},
            data={"operations": operation, "map": '{"0": ["variables.files.0"]}'},
            files={"0": ("file.dcm", instance_bytes(1, 1, number))},
        )

    async def send(self, number: int) -> None:
        """Send a new file as a modality does."""
        answer = await self.modality.post("/instances", content=instance_bytes(2, 1, number))
        answer.raise_for_status()

    async def is_alive(self, _number: int) -> None:
        """Fail unless `/healthz` answers."""
        answer = await self.server.http.get("/healthz", timeout=_HEALTH_SECONDS)
        assert answer.json() == {"status": "ok"}

    async def is_told(self) -> bool:
        """Tell whether `/api/status` names MongoDB, and nothing else."""
        parts = (await self.server.http.get("/api/status")).json()
        assert parts["orthanc"]["status"] == "ok"
        return parts["mongodb"]["status"] != "ok" and "MongoDB" in parts["mongodb"]["message"]

    async def works(self) -> bool:
        """Tell whether the server is ready and answers."""
        return not await self.is_told() and "errors" not in await self.query()

    async def is_in_step(self) -> bool:
        """Tell whether the index holds what Orthanc holds."""
        return await self.indexed() == set((await self.modality.get("/instances")).json())

    async def indexed(self) -> set[str]:
        """Return the instances in MongoDB."""
        found = self.server.runtime.database["instances"].find({}, {"_id": 1})
        return {document["_id"] async for document in found}

    async def _answer(self, **request: Any) -> Answer:
        answer = await self.server.http.post("/graphql", **request)
        assert answer.status_code == 200
        body: Answer = answer.json()
        return body


@pytest.fixture(scope="module")
async def own_mongodb(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedMongod]:
    async with run_mongod(tmp_path_factory.mktemp("faulty")) as mongod:
        yield mongod


@pytest.fixture
async def proxy(own_mongodb: EmbeddedMongod) -> AsyncIterator[SlowProxy]:
    [(_, port)] = uri_parser.parse_uri(own_mongodb.url)["nodelist"]
    async with run_slow_proxy(port) as running_proxy:
        yield running_proxy


@pytest.fixture
async def stage(
    own_mongodb: EmbeddedMongod,
    proxy: SlowProxy,
    settings: Settings,
    request: pytest.FixtureRequest,
) -> AsyncIterator[Stage]:
    is_slow = request.node.callspec.params["fault"] is slow
    url = _url_through(proxy, own_mongodb) if is_slow else own_mongodb.url
    given = settings.model_copy(
        update={"mongodb_url": SecretStr(url), "mongodb_database": f"test_{secrets.token_hex(6)}"}
    )
    async with (
        # With an address it follows Orthanc, as a server does.
        open_runtime(given, address="127.0.0.1:0") as runtime,
        run_server(given, runtime) as server,
        modality_client(settings) as modality,
    ):
        yield Stage(own_mongodb, proxy, server, modality)


def _url_through(proxy: SlowProxy, mongod: EmbeddedMongod) -> str:
    known = uri_parser.parse_uri(mongod.url)
    # A member of a replica set tells its own port: nobody may ask it for that.
    return (
        f"mongodb://{known['username']}:{known['password']}@127.0.0.1:{proxy.port}/"
        "?directConnection=true&authSource=admin"
    )


@asynccontextmanager
async def stepped_down(stage: Stage) -> AsyncIterator[None]:
    """There is no primary."""
    async with AsyncMongoClient[Answer](stage.mongod.url) as client:
        await client.admin.command("replSetStepDown", _STEPPED_DOWN_SECONDS, force=True)
    yield


@asynccontextmanager
async def stopped(stage: Stage) -> AsyncIterator[None]:
    """MongoDB hangs, with all its connections open."""
    os.kill(stage.mongod.child.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stage.mongod.child.pid, signal.SIGCONT)


@asynccontextmanager
async def slow(stage: Stage) -> AsyncIterator[None]:
    """Every answer of MongoDB comes late."""
    stage.proxy.delay_seconds = LATENCY_SECONDS
    try:
        yield
    finally:
        stage.proxy.delay_seconds = 0


@asynccontextmanager
async def killed(stage: Stage) -> AsyncIterator[None]:
    """MongoDB dies, and is started again."""
    os.kill(stage.mongod.child.pid, signal.SIGKILL)
    yield


Fault = Callable[[Stage], AbstractAsyncContextManager[None]]


@pytest.mark.parametrize("fault", [stepped_down, stopped, slow, killed])
async def test_a_fault_of_mongodb_is_told_loses_nothing_and_passes_by_itself(
    stage: Stage, fault: Fault
) -> None:
    async with (
        steady(5, stage.is_alive),
        steady(5, stage.query) as queries,
        steady(2, stage.upload) as uploads,
        steady(2, stage.send),
    ):
        await eventually(lambda: _is_more(_stored(uploads), 1))
        async with fault(stage):
            if fault is not killed:
                await asyncio.gather(eventually(stage.is_told), asyncio.sleep(FAULT_SECONDS))
        await eventually(stage.works, within_seconds=RECOVERY_SECONDS)
        stored = len(_stored(uploads))
        await eventually(lambda: _is_more(_stored(uploads), stored))
    await eventually(stage.is_in_step, within_seconds=RECOVERY_SECONDS)
    assert _stored(uploads) <= await stage.indexed()
    refusals = list(_refusals([*queries, *uploads]))
    assert {code for code, _ in refusals} <= {DatabaseUnavailable.code}
    assert all("again" in message for _, message in refusals)
    if fault is stepped_down:
        # The other members are asked; here it is the same one, which is no primary then.
        assert not list(_refusals(queries))


@pytest.mark.parametrize("fault", [stopped])
async def test_each_file_of_an_upload_is_told_about_while_mongodb_is_away(
    stage: Stage, fault: Fault
) -> None:
    async with fault(stage):
        await eventually(stage.is_told)
        answer = await stage.upload(1)
    assert "errors" not in answer
    [result] = _results(answer)
    assert (result["status"], result["error"]["code"]) == ("FAILED", "DATABASE_UNAVAILABLE")
    assert "is stored in Orthanc PACS" in result["error"]["message"]
    await eventually(stage.is_in_step, within_seconds=RECOVERY_SECONDS)

    async def is_written_down() -> bool:
        trail = stage.server.runtime.database["audit"]
        records = await trail.find({"action": "upload"}).to_list()
        return [record["outcome"] for record in records] == ["DATABASE_UNAVAILABLE"]

    await eventually(is_written_down)


async def test_what_a_crash_of_mongodb_takes_back_is_indexed_again(
    own_mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc, monkeypatch: pytest.MonkeyPatch
) -> None:
    move = FeedCursor.move
    deaths = iter([signal.SIGKILL])

    async def move_after_a_crash(cursor: FeedCursor, position: FeedPosition, token: int) -> None:
        # What was indexed an instant ago is not in MongoDB's journal yet; PyMongo hides the crash
        # from this write by trying it again.
        for death in deaths:
            os.kill(own_mongodb.child.pid, death)
        await move(cursor, position, token)

    async with (
        open_stage(own_mongodb, empty_orthanc, interval_seconds=3600) as stage,
        running(stage.sync),
    ):
        await stage.send([instance_bytes(1, 1, 1)])
        await eventually(stage.is_in_step)
        monkeypatch.setattr(FeedCursor, "move", move_after_a_crash)
        await stage.send([instance_bytes(1, 1, number) for number in range(2, 12)])
        await eventually(lambda: _is_over(deaths))
        await eventually(stage.is_in_step, within_seconds=RECOVERY_SECONDS)


async def test_a_command_does_not_wait_for_ever_for_a_connection(
    own_mongodb: EmbeddedMongod, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "_QUEUE_MS", 100)
    async with open_database(f"{own_mongodb.url}&maxPoolSize=1", "queue") as opened:
        await opened["things"].insert_one({})

        async def find_slowly() -> None:
            with translated_database_faults():
                await opened["things"].find_one({"$where": "sleep(1000) || true"})

        outcomes = await asyncio.gather(find_slowly(), find_slowly(), return_exceptions=True)
        await opened.client.drop_database("queue")
    assert {type(outcome) for outcome in outcomes} == {type(None), DatabaseUnavailable}


def _stored(uploads: Iterable[Answer]) -> set[str]:
    """Return the instances whose senders were told that they are stored."""
    return {
        result["instance"]["orthancInstanceId"]
        for answer in uploads
        for result in _results(answer)
        if result["status"] == "STORED" and result["instance"]
    }


def _refusals(answers: Iterable[Answer]) -> Iterator[tuple[str, str]]:
    """Yield code and message of everything that went wrong."""
    for answer in answers:
        for error in answer.get("errors", ()):
            yield error["extensions"]["code"], error["message"]
        for result in _results(answer):
            if result["error"] is not None:
                yield result["error"]["code"], result["error"]["message"]


def _results(answer: Answer) -> list[Answer]:
    payload = (answer["data"] or {}).get("uploadDicom") or {"results": []}
    results: list[Answer] = payload["results"]
    return results


async def _is_more(found: set[str], than: int) -> bool:
    return len(found) > than


async def _is_over(deaths: Iterator[signal.Signals]) -> bool:
    return not operator.length_hint(deaths)
