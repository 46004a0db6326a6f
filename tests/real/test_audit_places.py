"""Every place that shows, mints, hands out or refuses writes its record: a real server tells."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any

import pytest
from pydicom.data import get_testdata_file
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from graph.relay import encode_node_id, require_node_id
from models import AuditRecord
from services.auth.roles import Role
from services.errors import DatabaseUnavailable
from services.ingest.service import SentFile
from services.query.tree import Tree
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from tests.real.jobs_stage import ended, running_jobs
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
    stored = await AuditRecord.find().sort("_id").to_list()
    records = [one.model_dump(by_alias=True, exclude_none=True) for one in stored]
    for record in records:
        assert len(record.pop("correlationID")) == 16
        assert record.pop("clientAddress") == "127.0.0.1"
        del record["_id"], record["at"]
    return records


def record(action: str, who: str | None, detail: str, **others: Any) -> Record:
    principal = {"principal": who, "role": who} if who else {}
    common = {"orthancPatientIds": [], "orthancStudyIds": [], "numberOfObjects": 1}
    return {"action": action, "outcome": "ok", "detail": detail} | common | principal | others


async def test_a_query_is_one_record_of_a_view_and_its_urls(
    server: RunningServer, tokens: dict[str, str], subjects: Record
) -> None:
    assert "errors" not in await ask(server, tokens["viewer"], TREE)
    assert await trail(server) == [
        record(
            "view",
            "viewer",
            "studies,Frame.url,Study.archiveUrl",
            **subjects,
            numberOfObjects=4,
            mintedUrls=2,
            searched="studies",
        ),
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


async def test_what_looks_for_nobody_is_no_view(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    assert "errors" not in await ask(server, tokens["viewer"], "{ server { version } }")
    assert await trail(server) == []


@pytest.mark.parametrize(
    ("query", "searched"),
    [
        ('{ patient(patientID: "X") { id } }', 'patient {"patientID":"X"}'),
        ('{ study(studyInstanceUID: "1.2") { id } }', 'study {"studyInstanceUID":"1.2"}'),
        ('{ series(seriesInstanceUID: "1.2") { id } }', 'series {"seriesInstanceUID":"1.2"}'),
        ('{ instance(sopInstanceUID: "1.2") { id } }', 'instance {"sopInstanceUID":"1.2"}'),
        ('{ node(id: "x") { id } }', 'node {"id":"x"}'),
        (
            '{ studies(first: 0, filter: {text: "huber"}) { totalCount } }',
            'studies {"filter":{"text":"huber"}}',
        ),
        (
            '{ studies(first: 0, filter: {text: "h"}) { pageInfo { hasNextPage } } }',
            'studies {"filter":{"text":"h"}}',
        ),
        (
            '{ patients(first: 0, filter: {patientName: "hub"}) { totalCount } }',
            'patients {"filter":{"patientName":"hub"}}',
        ),
        ("{ patients(first: 0) { totalCount } }", "patients"),
    ],
)
async def test_every_search_is_recorded_although_it_shows_nobody(
    server: RunningServer, tokens: dict[str, str], query: str, searched: str
) -> None:
    assert "errors" not in await ask(server, tokens["viewer"], query)
    field = searched.partition(" ")[0]
    assert await trail(server) == [
        record("view", "viewer", field, numberOfObjects=0, searched=searched)
    ]


async def test_searches_of_one_request_share_a_record(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    query = '{ a: study(studyInstanceUID: "1.2") { id } patients(first: 0) { totalCount } }'
    await ask(server, tokens["viewer"], query)
    searched = 'study {"studyInstanceUID":"1.2"}; patients'
    assert await trail(server) == [
        record("view", "viewer", "study,patients", numberOfObjects=0, searched=searched)
    ]


async def test_a_query_that_took_too_long_is_recorded(
    settings: Settings, runtime: Runtime, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def never(_tree: Tree, _study_instance_uid: str) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(Tree, "study", never)
    short = settings.model_copy(update={"operation_seconds": 0.5})
    async with run_server(short, runtime) as server:
        answer = await ask(server, tokens["viewer"], '{ study(studyInstanceUID: "1.2") { id } }')
    assert answer["errors"][0]["extensions"]["code"] == "LIMIT_EXCEEDED"
    assert await trail(server) == [
        record(
            "view",
            "viewer",
            "study",
            outcome="LIMIT_EXCEEDED",
            numberOfObjects=0,
            searched='study {"studyInstanceUID":"1.2"}',
        )
    ]


@pytest.mark.parametrize(
    ("mutation", "detail"),
    [
        ('deletePatient(id: "%s")', "Patient Study {}"),
        ('deleteSeries(id: "%s")', "Series Study {}"),
        ('deleteInstance(id: "x%s")', "Instance (no id)"),
    ],
)
async def test_a_deletion_by_an_id_of_something_else_is_recorded(
    server: RunningServer, tokens: dict[str, str], subjects: Record, mutation: str, detail: str
) -> None:
    [study_id] = subjects["orthancStudyIds"]
    called = mutation % encode_node_id("Study", study_id)
    await ask(server, tokens["admin"], f"mutation {{ {called} {{ deletedInstances }} }}")
    assert await trail(server) == [
        record("delete", "admin", detail.format(study_id), outcome="INVALID_INPUT")
    ]


async def test_strangers_can_not_flood_the_trail(server: RunningServer) -> None:
    for number in range(40):
        await server.http.get(f"/archives/v2/forged{number}")
        await ask(server, None, "{ studies { nodes { id } } }")
    assert [r["numberOfObjects"] for r in await trail(server)] == [1, 1]


async def test_refused_fields_are_refusals(server: RunningServer, tokens: dict[str, str]) -> None:
    await ask(server, None, "{ studies { nodes { id } } }")
    await server.http.get("/graphql", params={"query": "{ studies { nodes { id } } }"})
    await ask(server, tokens["viewer"], "mutation { synchronize { __typename } }")
    assert await trail(server) == [
        record("refusal", None, "POST /graphql", outcome="UNAUTHENTICATED"),
        record("refusal", None, "GET /graphql", outcome="UNAUTHENTICATED"),
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
        found = await AuditRecord.find_one({"action": "archive"})
    assert found is not None
    assert found.orthanc_study_ids == subjects["orthancStudyIds"]
    assert found.orthanc_patient_ids == subjects["orthancPatientIds"]


async def test_every_download_is_found_by_its_patient(
    server: RunningServer, tokens: dict[str, str], subjects: Record
) -> None:
    query = "{ studies { nodes { id archiveUrl series { instances { fileUrl } } } } }"
    (study,) = (await ask(server, tokens["viewer"], query))["data"]["studies"]["nodes"]
    start = f'mutation {{ exportStudies(ids: ["{study["id"]}"]) {{ id }} }}'
    async with running_jobs(server.runtime):
        started = (await ask(server, tokens["viewer"], start))["data"]["exportStudies"]
        await ended(server.runtime, require_node_id("Job", started["id"]))
    followed = await ask(server, tokens["viewer"], f'{{ job(id: "{started["id"]}") {{ url }} }}')
    path = await wado_path(server)
    headers = {"Authorization": f"Bearer {tokens['viewer']}"}
    for url in (
        followed["data"]["job"]["url"],
        study["archiveUrl"],
        study["series"][0]["instances"][0]["fileUrl"],
        path,
        f"{path}/metadata",
        path.partition("/series/")[0],
    ):
        assert (await server.http.get(url, headers=headers)).status_code == 200
    await server.runtime.audit.flush()
    written = await AuditRecord.find().to_list()
    assert [one.action for one in written].count("archive") == 5
    # What the job did at its end is among them, and every view.
    for one in written:
        if one.orthanc_study_ids:
            assert one.orthanc_patient_ids == subjects["orthancPatientIds"], one.detail


async def wado_path(server: RunningServer) -> str:
    """The address of the one stored instance."""
    study, series, instance = [
        await server.runtime.database[name].find_one()
        for name in ("studies", "series", "instances")
    ]
    assert study is not None
    assert series is not None
    assert instance is not None
    return (
        f"/dicomweb/studies/{study['studyInstanceUID']}/series/{series['seriesInstanceUID']}"
        f"/instances/{instance['sopInstanceUID']}"
    )


async def test_a_frame_of_a_study_is_a_view_found_or_not(
    server: RunningServer, tokens: dict[str, str], subjects: Record
) -> None:
    study = await server.runtime.database["studies"].find_one()
    assert study is not None
    route = "GET /api/dicom/studies/{study_uid}/frames/{frame_index}"
    headers = {"Authorization": f"Bearer {tokens['viewer']}"}
    statuses = [
        (await server.http.get(f"/api/dicom/studies/{uid}/frames/0", headers=headers)).status_code
        for uid in (study["studyInstanceUID"], "1.2")
    ]
    assert statuses == [200, 404]
    found = f'study {{"studyInstanceUID":"{study["studyInstanceUID"]}"}}'
    missed = 'study {"studyInstanceUID":"1.2"}'
    assert await trail(server) == [
        record("view", "viewer", route, **subjects, searched=found),
        record("view", "viewer", route, outcome="FRAME_NOT_FOUND", searched=missed),
    ]


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


async def test_a_subscription_is_a_search_and_a_record_per_event(
    server: RunningServer, tokens: dict[str, str], subjects: Record
) -> None:
    messages = await subscribe(server, tokens["viewer"], 2)
    assert [message["type"] for message in messages] == ["next", "next"]
    records = await trail(server)
    assert records[:3] == [
        record("view", "viewer", "studyEvents", numberOfObjects=0, searched="studyEvents"),
        record("view", "viewer", "studyEvents,Frame.url", **subjects, mintedUrls=1),
        record("mint", "viewer", "studyEvents,Frame.url", **subjects, mintedUrls=1),
    ]


async def test_a_refused_websocket_is_a_refusal(server: RunningServer) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        await subscribe(server, None, 0)
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == 4403
    assert await trail(server) == [
        record("refusal", None, "connection_init", outcome="UNAUTHENTICATED")
    ]


@pytest.mark.parametrize("query", [TREE, '{ patient(patientID: "1CT1") { patientName } }'])
async def test_what_can_not_be_written_down_is_not_shown(
    server: RunningServer, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    async def full(_event: object) -> None:
        raise DatabaseUnavailable(detail="the audit queue is full")

    monkeypatch.setattr(server.runtime.audit, "enqueue", full)
    answer = await ask(server, tokens["viewer"], query)
    assert "data" not in answer
    assert answer["errors"][0]["extensions"]["code"] == "DATABASE_UNAVAILABLE"
