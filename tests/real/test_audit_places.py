"""Every place that shows, mints, hands out or refuses writes its record: a real server tells."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.data import get_testdata_file
from websockets.asyncio.client import connect

from services.auth.roles import Role
from services.errors import DatabaseUnavailable
from services.ingest.service import SentFile
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from tests.servers import RunningServer, run_server
from tests.tokens import give_tokens

if TYPE_CHECKING:
    import httpx

Record = dict[str, Any]

TREE = """{ studies { nodes { archiveUrl series { instances { frames { url } } } } } }"""


@pytest.fixture
def tokens(settings: Settings) -> dict[str, str]:
    return give_tokens(settings, **{role.name.lower(): role for role in Role})


@pytest.fixture
async def runtime(settings: Settings, tokens: dict[str, str]) -> AsyncIterator[Runtime]:
    assert tokens
    async with open_runtime(settings) as opened:
        path = get_testdata_file("CT_small.dcm", download=False)
        await opened.ingest.store([SentFile("ct", lambda: open(str(path), "rb"))])  # noqa: PTH123,SIM115  # pydicom gives a text; closed by the store
        yield opened
        await opened.database.client.drop_database(settings.mongodb_database)


@pytest.fixture
async def server(settings: Settings, runtime: Runtime) -> AsyncIterator[RunningServer]:
    async with run_server(settings, runtime) as running:
        yield running


@pytest.fixture
async def subjects(runtime: Runtime) -> Record:
    """Whom the one stored study is about, by the names of the trail."""
    study = await runtime.database["studies"].find_one()
    assert study is not None
    return {"orthancPatientIds": [study["orthancPatientId"]], "orthancStudyIds": [study["_id"]]}


async def ask(server: RunningServer, token: str | None, query: str) -> Record:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    response = await server.http.post("/graphql", json={"query": query}, headers=headers)
    answer: Record = response.json()
    return answer


async def trail(server: RunningServer) -> list[Record]:
    """The records, without what differs between runs; their correlation ids are checked."""
    await server.runtime.audit.flush()
    records = await server.runtime.database["audit"].find().sort("_id").to_list()
    for record in records:
        assert len(record.pop("correlationID")) == 16
        assert record.pop("clientAddress") == "127.0.0.1"
        del record["_id"], record["at"]
    return records


def record(action: str, who: str | None, detail: str, **others: Any) -> Record:
    principal = {"principal": who, "role": who} if who else {}
    common = {"orthancPatientIds": [], "orthancStudyIds": [], "numberOfObjects": 1}
    return {"action": action, "outcome": "ok", "detail": detail} | common | principal | others


async def test_a_query_is_one_view_and_one_mint(
    server: RunningServer, tokens: dict[str, str], subjects: Record
) -> None:
    assert "errors" not in await ask(server, tokens["viewer"], TREE)
    assert await trail(server) == [
        record("view", "viewer", "studies", **subjects, numberOfObjects=4),
        record("mint", "viewer", "Frame.url,Study.archiveUrl", **subjects, numberOfObjects=2),
    ]


@pytest.mark.parametrize(
    "query",
    [
        '{ patient(patientID: "1CT1") { patientName } }',
        "{ patients { nodes { studies { nodes { id } } } } }",
        '{ study(studyInstanceUID: "%(study)s") { id } }',
        '{ series(seriesInstanceUID: "%(series)s") { id } }',
        '{ instance(sopInstanceUID: "%(instance)s") { tags } }',
        '{ node(id: "%(node)s") { id } }',
    ],
)
async def test_every_way_to_read_is_a_view(
    server: RunningServer, tokens: dict[str, str], subjects: Record, query: str
) -> None:
    found = await ask(
        server,
        tokens["admin"],
        "{ studies { nodes { id studyInstanceUID series { seriesInstanceUID instances "
        "{ sopInstanceUID } } } } }",
    )
    [study] = found["data"]["studies"]["nodes"]
    [series] = study["series"]
    names = {
        "study": study["studyInstanceUID"],
        "series": series["seriesInstanceUID"],
        "instance": series["instances"][0]["sopInstanceUID"],
        "node": study["id"],
    }
    answer = await ask(server, tokens["viewer"], query % names)
    assert None not in answer["data"].values()
    viewed = (await trail(server))[-1]
    assert (viewed["action"], viewed["principal"]) == ("view", "viewer")
    assert viewed["orthancPatientIds"] == subjects["orthancPatientIds"]
    is_patient_only = "patient(" in query
    assert viewed["orthancStudyIds"] == ([] if is_patient_only else subjects["orthancStudyIds"])


async def test_what_shows_nobody_is_no_view(server: RunningServer, tokens: dict[str, str]) -> None:
    query = '{ server { version } study(studyInstanceUID: "1.2") { id } }'
    assert "errors" not in await ask(server, tokens["viewer"], query)
    assert await trail(server) == []


async def test_refused_fields_are_refusals(server: RunningServer, tokens: dict[str, str]) -> None:
    await ask(server, None, "{ studies { nodes { id } } }")
    await server.http.get("/graphql", params={"query": "{ studies { nodes { id } } }"})
    await ask(server, tokens["viewer"], "mutation { synchronize { __typename } }")
    assert await trail(server) == [
        record("refusal", None, "POST /graphql", outcome="UNAUTHENTICATED"),
        record("refusal", None, "studies", outcome="UNAUTHENTICATED"),
        record("refusal", "viewer", "synchronize", outcome="FORBIDDEN"),
    ]


async def test_refused_requests_are_refusals(server: RunningServer, tokens: dict[str, str]) -> None:
    http = server.http
    viewer = {"Authorization": f"Bearer {tokens['viewer']}"}
    form = {"files": {"file": b"x"}}
    no_body = {"Content-Type": "multipart/form-data; boundary=b", "GraphQL-Preflight": "1"}
    answers: list[httpx.Response] = [
        await http.post("/api/dicom/upload", headers=viewer, **form),  # type: ignore[arg-type]  # httpx's files
        await http.get("/api/dicom/studies/1.2/frames/0"),
        await http.post("/graphql", headers=viewer | no_body),
        await http.get("/frames/v2/k1.66a0b228.zHTjwNdaXd1Tu24XeDaBnQ/x.png"),
        await http.get("/archives/v2/forged"),
        await http.post("/internal/orthanc-events", json={}),
    ]
    assert [answer.status_code for answer in answers] == [403, 401, 403, 403, 403, 403]
    frame_route = "GET /api/dicom/studies/{study_uid}/frames/{frame_index}"
    invalid = "FRAME_URL_INVALID"
    assert await trail(server) == [
        record("refusal", "viewer", "POST /api/dicom/upload", outcome="FORBIDDEN"),
        record("refusal", None, frame_route, outcome="UNAUTHENTICATED"),
        record("refusal", "viewer", "POST /graphql", outcome="FORBIDDEN"),
        record("refusal", None, "GET /frames/v2/{signed:path}", outcome=invalid),
        record("refusal", None, "GET /archives/v2/{signed:path}", outcome=invalid),
        record("refusal", None, "POST /internal/orthanc-events", outcome="FORBIDDEN"),
    ]


async def test_an_archive_is_written_down_before_its_first_byte(
    server: RunningServer, tokens: dict[str, str], subjects: Record
) -> None:
    answer = await ask(server, tokens["viewer"], "{ studies { nodes { archiveUrl } } }")
    url = answer["data"]["studies"]["nodes"][0]["archiveUrl"]
    await server.runtime.audit.flush()
    async with server.http.stream("GET", url) as response:
        assert response.status_code == 200
        found = await server.runtime.database["audit"].find_one({"action": "archive"})
    assert found is not None
    assert found["orthancStudyIds"] == subjects["orthancStudyIds"]


async def test_a_frame_of_a_study_is_a_view(
    server: RunningServer, tokens: dict[str, str], subjects: Record
) -> None:
    study = await server.runtime.database["studies"].find_one()
    assert study is not None
    response = await server.http.get(
        f"/api/dicom/studies/{study['studyInstanceUID']}/frames/0",
        headers={"Authorization": f"Bearer {tokens['viewer']}"},
    )
    assert response.status_code == 200
    route = "GET /api/dicom/studies/{study_uid}/frames/{frame_index}"
    assert await trail(server) == [record("view", "viewer", route, **subjects)]


async def subscribe(server: RunningServer, token: str | None, touches: int) -> list[Record]:
    """Subscribe and touch the one study; answers the messages of the subscription."""
    url = server.url.replace("http", "ws") + "/graphql"
    init = {"Authorization": f"Bearer {token}"} if token else {}
    query = "subscription { studyEvents { kind study { thumbnail { url } } } }"
    messages: list[Record] = []
    async with connect(url, subprotocols=["graphql-transport-ws"], proxy=None) as socket:  # type: ignore[list-item]  # a NewType of str
        await socket.send(json.dumps({"type": "connection_init", "payload": init}))
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        start = {"id": "1", "type": "subscribe", "payload": {"query": query}}
        await socket.send(json.dumps(start))
        for number in range(max(touches, 1)):
            message: asyncio.Task[str | bytes] = asyncio.create_task(socket.recv())
            while not message.done():
                change = {"$set": {"studyDescription": f"touched {number}"}}
                change["$currentDate"] = {"updatedAt": True}  # type: ignore[dict-item]  # MongoDB's word
                await server.runtime.database["studies"].update_one({}, change)
                await asyncio.wait([message], timeout=0.3)
            messages.append(json.loads(message.result()))
    return messages


async def test_a_subscription_is_one_view_and_a_mint_per_event(
    server: RunningServer, tokens: dict[str, str], subjects: Record
) -> None:
    messages = await subscribe(server, tokens["viewer"], 2)
    assert [message["type"] for message in messages] == ["next", "next"]
    records = await trail(server)
    assert [record["action"] for record in records][:3] == ["view", "mint", "mint"]
    assert [r for r in records if r["action"] == "view"] == [
        record("view", "viewer", "studyEvents", **subjects)
    ]


async def test_a_refused_subscription_is_a_refusal(server: RunningServer) -> None:
    await subscribe(server, None, 0)
    assert await trail(server) == [
        record("refusal", None, "studyEvents", outcome="UNAUTHENTICATED")
    ]


@pytest.mark.parametrize("query", [TREE, '{ patient(patientID: "1CT1") { patientName } }'])
async def test_what_can_not_be_written_down_is_not_shown(
    server: RunningServer, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    async def full(_deed: object) -> None:
        raise DatabaseUnavailable(detail="the audit queue is full")

    monkeypatch.setattr(server.runtime.audit, "note", full)
    answer = await ask(server, tokens["viewer"], query)
    assert "data" not in answer
    assert answer["errors"][0]["extensions"]["code"] == "DATABASE_UNAVAILABLE"
