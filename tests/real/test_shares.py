"""Shares on real servers: what a link shows, how it ends, and what is written about it."""

import asyncio
import json
import logging
import re
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from starlette.routing import Route
from websockets.asyncio.client import ClientConnection, connect

from graph.app import create_app
from graph.authentication import SHARE_PARAMETER
from graph.logs import _QUIET
from services.auth.roles import Role
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from services.sharing.service import Sharing
from services.sharing.store import ShareStore
from tests.patience import PATIENCE_SECONDS
from tests.real.dicomweb_stage import slices, store, uid
from tests.real.sync_stage import eventually
from tests.servers import RunningServer, run_server
from tests.tokens import give_tokens

Record = dict[str, Any]

CREATE = """mutation ($input: CreateShareInput!) {
  createShare(input: $input) {
    token url viewerUrl
    share { id name createdBy expiresAt revokedAt useCount lastUsedAt mayDownload studies { id } }
  }
}"""
REVOKE = "mutation ($id: ID!) { revokeShare(id: $id) { id revokedAt } }"
LIST = """query ($ended: Boolean! = false) {
  shares(includeEnded: $ended) { totalCount nodes { id name createdBy useCount } }
}"""
PICTURES = """{ studies { totalCount nodes {
  id studyInstanceUID series { instances { frameUrlTemplate frame { url path urlExpiresAt } } }
} } }"""
VIEWER = """{ viewer {
  name role expiresAt isLimitedToShare canUpload canDelete canDownload
} }"""
SOON = timedelta(minutes=10)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"ohif_url": "https://ohif.test/app"})


@pytest.fixture
def tokens(settings: Settings) -> dict[str, str]:
    people = {"ann": Role.UPLOADER, "bob": Role.UPLOADER, "eve": Role.VIEWER, "root": Role.ADMIN}
    return give_tokens(settings, **people)


@pytest.fixture
async def runtime(settings: Settings, tokens: dict[str, str]) -> AsyncIterator[Runtime]:
    assert tokens
    async with open_runtime(settings) as opened:
        yield opened


@pytest.fixture
async def server(settings: Settings, runtime: Runtime) -> AsyncIterator[RunningServer]:
    async with run_server(settings, runtime) as running:
        await store(running, slices("shared", 2))
        await store(running, slices("hidden", 1))
        yield running


async def ask(server: RunningServer, token: str, query: str, **variables: object) -> Record:
    """Execute an operation; answers the whole answer."""
    response = await server.http.post(
        "/graphql",
        json={"query": query, "variables": variables},
        headers={"Authorization": f"Bearer {token}"},
    )
    answer: Record = response.json()
    return answer


async def data(server: RunningServer, token: str, query: str, **variables: object) -> Record:
    answer = await ask(server, token, query, **variables)
    assert "errors" not in answer, answer
    found: Record = answer["data"]
    return found


def code(answer: Record) -> str:
    return str(answer["errors"][0]["extensions"]["code"])


async def study_id(server: RunningServer, token: str, patient: str) -> str:
    query = "query ($uid: String!) { study(studyInstanceUID: $uid) { id } }"
    found = await data(server, token, query, uid=uid(patient))
    return str(found["study"]["id"])


async def share(server: RunningServer, token: str, **more: Any) -> Record:
    """Share the first study."""
    ends = datetime.now(UTC) + more.pop("lifetime", SOON)
    given = {
        "name": "Dr. Huber",
        "studyIds": [await study_id(server, token, "shared")],
        "expiresAt": ends.isoformat(),
        **more,
    }
    found: Record = (await data(server, token, CREATE, input=given))["createShare"]
    return found


async def status(server: RunningServer, path: str) -> int:
    return (await server.http.get(path)).status_code


async def test_a_share_shows_its_studies_and_nothing_else(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    hidden = await study_id(server, tokens["ann"], "hidden")
    made = await share(server, tokens["ann"])
    token = made["token"]
    assert made["url"] == f"{server.url}/s/{token}"
    assert made["share"]["createdBy"] == "ann"
    assert made["share"]["useCount"] == 0
    studies = (await data(server, token, PICTURES))["studies"]
    assert studies["totalCount"] == 1
    assert [study["studyInstanceUID"] for study in studies["nodes"]] == [uid("shared")]
    for found in (
        await data(server, token, "query ($id: ID!) { node(id: $id) { id } }", id=hidden),
        await data(
            server,
            token,
            "query ($uid: String!) { node: study(studyInstanceUID: $uid) { id } }",
            uid=uid("hidden"),
        ),
        await data(
            server, token, "query ($id: ID!) { node(id: $id) { id } }", id=made["share"]["id"]
        ),
    ):
        assert found == {"node": None}
    viewer = (await data(server, token, VIEWER))["viewer"]
    assert viewer == {
        "name": "share:" + await _id_of(server, made),
        "role": "VIEWER",
        "expiresAt": made["share"]["expiresAt"],
        "isLimitedToShare": True,
        "canUpload": False,
        "canDelete": False,
        "canDownload": False,
    }
    assert code(await ask(server, token, LIST)) == "FORBIDDEN"
    assert code(await ask(server, token, "mutation { synchronize { __typename } }")) == "FORBIDDEN"
    frame = f"/api/dicom/studies/{uid('hidden')}/frames/0"
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await server.http.get(frame, headers=bearer)).status_code == 404
    own = await server.http.get(frame.replace(uid("hidden"), uid("shared")), headers=bearer)
    assert own.status_code == 200


async def _id_of(server: RunningServer, made: Record) -> str:
    stored = await server.runtime.database["shares"].find_one({"name": made["share"]["name"]})
    assert stored is not None
    assert made["token"] not in json.dumps(stored, default=str)
    return str(stored["_id"])


async def test_revoking_ends_the_link_and_all_urls_of_it_in_every_process(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    made = await share(server, tokens["ann"], mayDownload=True)
    token = made["token"]
    [study] = (await data(server, token, PICTURES))["studies"]["nodes"]
    frame = study["series"][0]["instances"][0]["frame"]
    archive = "{ studies { nodes { archiveUrl } } }"
    [zipped] = (await data(server, token, archive))["studies"]["nodes"]
    links = [
        frame["path"],
        zipped["archiveUrl"].removeprefix(server.url),
        f"/s/{token}/ohif.json",
        f"/s/{token}/dicomweb/studies",
    ]
    assert [await status(server, link) for link in links] == [200] * 4
    other = Sharing(ShareStore(server.runtime.database), max_days=1, page_max_size=1)
    assert await other.principal_of(token) is not None
    share_id = made["share"]["id"]
    assert code(await ask(server, tokens["bob"], REVOKE, id=share_id)) == "NOT_FOUND"
    assert code(await ask(server, token, REVOKE, id=share_id)) == "FORBIDDEN"
    revoked_at = time.monotonic()
    revoked = (await data(server, tokens["ann"], REVOKE, id=share_id))["revokeShare"]
    assert revoked["revokedAt"] is not None

    async def is_refused() -> bool:
        answers = [await status(server, link) for link in links]
        gone = await other.principal_of(token) is None
        return gone and answers == [410, 410, 404, 404]

    await eventually(is_refused)
    assert time.monotonic() - revoked_at < PATIENCE_SECONDS
    assert code(await ask(server, token, PICTURES)) == "UNAUTHENTICATED"
    # Twice is once; who revoked it first counts.
    again = await data(server, tokens["root"], REVOKE, id=share_id)
    assert again["revokeShare"] == revoked
    await other.aclose()


async def test_signed_urls_end_with_the_share(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    made = await share(server, tokens["ann"])
    [study] = (await data(server, made["token"], PICTURES))["studies"]["nodes"]
    instance = study["series"][0]["instances"][0]
    ends = datetime.fromisoformat(made["share"]["expiresAt"])
    assert datetime.fromisoformat(instance["frame"]["urlExpiresAt"]) == ends.replace(microsecond=0)
    own_id = await _id_of(server, made)
    ticket = instance["frame"]["path"].split("/")[3]
    assert ticket.split(".")[3] == own_id
    # Without its share, or under another one, the signature is not ours.
    forged = [ticket.rpartition(".")[0], ticket.replace(own_id, "0" * 16), ticket + ".0"]
    for one in forged:
        assert await status(server, instance["frame"]["path"].replace(ticket, one)) == 403
    own = (await data(server, tokens["eve"], PICTURES))["studies"]["nodes"][0]
    assert own["series"][0]["instances"][0]["frame"]["path"].split("/")[3].count(".") == 2


async def test_an_expired_share_is_one_that_is_not_there(
    server: RunningServer, tokens: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = await share(server, tokens["ann"])
    assert "errors" not in await ask(server, made["token"], PICTURES)
    ends = datetime.fromisoformat(made["share"]["expiresAt"])
    monkeypatch.setattr(server.runtime.sharing, "_now", lambda: ends)
    unknown = "ogqs_" + "x" * 43
    for token in (made["token"], unknown):
        assert code(await ask(server, token, PICTURES)) == "UNAUTHENTICATED"
        assert await status(server, f"/s/{token}/ohif.json") == 404
        assert await status(server, f"/s/{token}/dicomweb/studies") == 404
    assert (await data(server, tokens["ann"], LIST))["shares"]["totalCount"] == 0
    assert (await data(server, tokens["ann"], LIST, ended=True))["shares"]["totalCount"] == 1


async def test_downloads_need_permission(server: RunningServer, tokens: dict[str, str]) -> None:
    made = await share(server, tokens["ann"])
    assert code(await ask(server, made["token"], "{ studies { nodes { archiveUrl } } }")) == (
        "FORBIDDEN"
    )


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"name": "  "}, "INVALID_INPUT"),
        ({"name": "x" * 129}, "INVALID_INPUT"),
        ({"studyIds": []}, "INVALID_INPUT"),
        ({"studyIds": ["U3R1ZHk6eA=="]}, "INVALID_INPUT"),
        ({"lifetime": timedelta(seconds=-1)}, "INVALID_INPUT"),
        ({"lifetime": timedelta(days=91)}, "INVALID_INPUT"),
    ],
)
async def test_a_share_that_makes_no_sense_is_refused(
    server: RunningServer, tokens: dict[str, str], given: Record, expected: str
) -> None:
    ends = datetime.now(UTC) + given.pop("lifetime", SOON)
    asked = {
        "name": "x",
        "studyIds": [await study_id(server, tokens["ann"], "shared")],
        "expiresAt": ends.isoformat(),
        **given,
    }
    assert code(await ask(server, tokens["ann"], CREATE, input=asked)) == expected
    assert await server.runtime.database["shares"].count_documents({}) == 0


async def test_people_see_their_own_shares_and_administrators_all(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    await share(server, tokens["ann"], name="first")
    await share(server, tokens["bob"], name="second")
    names = {
        who: [node["name"] for node in (await data(server, tokens[who], LIST))["shares"]["nodes"]]
        for who in ("ann", "bob", "root")
    }
    assert names == {"ann": ["first"], "bob": ["second"], "root": ["second", "first"]}
    assert code(await ask(server, tokens["eve"], LIST)) == "FORBIDDEN"


async def test_the_trail_tells_of_making_opening_and_ending_and_never_the_token(
    server: RunningServer, tokens: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    made = await share(server, tokens["ann"])
    token, share_id = made["token"], await _id_of(server, made)
    for _ in range(3):
        await data(server, token, PICTURES)
        assert await status(server, f"/s/{token}") == 200
        assert await status(server, f"/s/{token}/dicomweb/studies?PatientID=x") == 200
        assert await status(server, f"/s/{token}/dicomweb/studies?Nonsense=x") == 400
    await data(server, tokens["ann"], REVOKE, id=made["share"]["id"])
    await server.runtime.audit.flush()
    records = await server.runtime.database["audit"].find().sort("_id").to_list()
    told = [(r["detail"], r["principal"]) for r in records if r["action"] == "share"]
    assert told == [
        (f"createShare {share_id}", "ann"),
        (f"opened {share_id}", f"share:{share_id}"),
        (f"revokeShare {share_id}", "ann"),
    ]
    assert f"GET /s/{{{SHARE_PARAMETER}}}/dicomweb/studies" in {r["detail"] for r in records}
    [stored] = await server.runtime.database["shares"].find().to_list()
    assert stored["useCount"] == 1
    # The server keeps the talkative loggers of libraries at WARNING; the test's client is one too.
    said = [one.getMessage() for one in caplog.records if not one.name.startswith(_QUIET)]
    assert any("/s/{share}/dicomweb" in line for line in said)
    everything = json.dumps([records, stored, said], default=str)
    assert token not in everything
    assert token.removeprefix("ogqs_") not in everything


async def test_the_page_of_a_share_tells_nobody_its_address(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    made = await share(server, tokens["ann"])
    page = await server.http.get(f"/s/{made['token']}")
    assert page.headers["referrer-policy"] == "no-referrer"
    assert 'src="../static/' in page.text
    assert made["token"] not in page.text
    unknown = await server.http.get("/s/ogqs_" + "x" * 43)
    assert (unknown.status_code, unknown.text) == (200, page.text)


async def test_a_viewer_is_configured_for_the_share_alone(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    made = await share(server, tokens["ann"])
    link = urlsplit(made["viewerUrl"])
    asked = parse_qs(link.query)
    assert f"{link.scheme}://{link.netloc}{link.path}" == (
        "https://ohif.test/app/viewer/dicomwebproxy"
    )
    assert asked["studyInstanceUIDs"] == [uid("shared")]
    [configuration] = asked["url"]
    answer = await server.http.get(configuration, headers={"Origin": "https://ohif.test"})
    assert answer.headers["access-control-allow-origin"] == "https://ohif.test"
    [source] = answer.json()["servers"]["dicomWeb"]
    studies = (await server.http.get(f"{source['qidoRoot']}/studies")).json()
    assert [study["0020000D"]["Value"] for study in studies] == [[uid("shared")]]
    [address] = studies[0]["00081190"]["Value"]
    assert address == f"{server.url}/s/{made['token']}/dicomweb/studies/{uid('shared')}"


async def test_every_route_of_a_share_answers_hidden_studies_as_if_they_were_not_stored(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    token = (await share(server, tokens["ann"], mayDownload=True))["token"]
    prefix = f"/s/{{{SHARE_PARAMETER}}}/dicomweb"
    templates = [
        route.path
        for route in create_app(server.runtime.settings).routes
        if isinstance(route, Route)
        and route.path.startswith(prefix)
        and "GET" in (route.methods or ())
    ]
    assert len(templates) >= 6
    searched = [
        f"{prefix}/{level}?{filter_}"
        for level in ("studies", "series", "instances")
        for filter_ in ("StudyInstanceUID={study}", "PatientID={patient}", "PatientName={patient}*")
    ]
    for template in (*templates, *searched):
        answers = []
        for patient in ("hidden", "nobody"):
            parts = {
                "patient": patient,
                "study": uid(patient),
                "series": uid(patient, 0),
                "instance": uid(patient, "instance", 0),
                "frames": "1",
                "frame": "1",
                "path": "00420011",
            }
            names = re.findall(r"{(\w+)(?::path)?}", template)
            path = re.sub(r":path}", "}", template)
            path = path.format(**{**dict.fromkeys(names, "1"), **parts, SHARE_PARAMETER: token})
            answer = await server.http.get(path)
            text = answer.text.replace(uid(patient), "UID")
            kept = {"content-type", "cache-control", "warning", "content-length"}
            headers = {name: text for name, text in answer.headers.items() if name in kept}
            answers.append((answer.status_code, _without_id(text), headers))
        assert answers[0] == answers[1], template
        if template in templates and "{study}" in template and "?" not in template:
            assert answers[0][0] in {200, 404}, template


def _without_id(text: str) -> str:
    """Leave out the id of the request."""
    return re.sub(r"[0-9a-f]{16}", "ID", text)


async def test_a_share_hears_of_its_own_studies_only(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    made = await share(server, tokens["ann"])
    async with _subscribed(server, made["token"]) as socket:

        async def is_watching() -> bool:
            return server.runtime.study_events.is_watching

        await eventually(is_watching)
        await store(server, slices("hidden", 2))
        await store(server, slices("unheard", 1))
        await store(server, slices("shared", 3))
        async with asyncio.timeout(PATIENCE_SECONDS):
            message = json.loads(await socket.recv())
    event = message["payload"]["data"]["studyEvents"]
    assert event == {"studyInstanceUID": uid("shared"), "study": {"numberOfInstances": 3}}


def _subscribed(server: RunningServer, token: str) -> "_Subscription":
    return _Subscription(server.url.replace("http", "ws") + "/graphql", token)


class _Subscription:
    """A subscription to study events by the token of a share."""

    def __init__(self, url: str, token: str) -> None:
        protocols: Any = ["graphql-transport-ws"]
        self._opening = connect(url, subprotocols=protocols, proxy=None)
        self._token = token

    async def __aenter__(self) -> ClientConnection:
        socket = await self._opening.__aenter__()
        payload = {"Authorization": f"Bearer {self._token}"}
        await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
        assert json.loads(await socket.recv())["type"] == "connection_ack"
        query = "subscription { studyEvents { studyInstanceUID study { numberOfInstances } } }"
        start = {"id": "1", "type": "subscribe", "payload": {"query": query}}
        await socket.send(json.dumps(start))
        return socket

    async def __aexit__(self, *exc: object) -> None:
        await self._opening.__aexit__(*exc)  # type: ignore[arg-type]  # what the block raised


async def test_a_link_that_has_ended_opens_no_open_server(
    settings: Settings, tmp_path: Path
) -> None:
    """A server without credentials takes everybody for its admin; the holder of a link is not."""
    alone = settings.model_copy(update={"data_dir": tmp_path / "open"})
    async with open_runtime(alone) as runtime, run_server(alone, runtime) as server:
        assert runtime.authenticator.is_open
        await store(server, slices("shared", 1))
        ended = "ogqs_" + "x" * 43
        assert code(await ask(server, ended, PICTURES)) == "UNAUTHENTICATED"
        url = server.url.replace("http", "ws") + "/graphql"
        protocols: Any = ["graphql-transport-ws"]
        async with connect(url, subprotocols=protocols, proxy=None) as socket:
            payload = {"Authorization": f"Bearer {ended}"}
            await socket.send(json.dumps({"type": "connection_init", "payload": payload}))
            await socket.wait_closed()
            assert socket.close_code == 4403
