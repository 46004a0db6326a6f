"""Labels on a real MongoDB: given, taken, counted, searched, and mirrored to Orthanc."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx

from graph.relay import encode_node_id
from models import AuditRecord
from services.auth.authenticator import open_authenticator
from services.auth.roles import Principal, Role
from services.auth.scope import ALL, Scope
from services.auth.tokens import TokenStore
from services.embedded.mongod import EmbeddedMongod
from services.errors import InvalidInput
from services.labels.service import Labels
from services.orthanc.client import OrthancClient
from services.orthanc.transport import open_http_client
from tests.patience import PATIENCE_SECONDS
from tests.real.query_stage import QueryStage, open_query_stage, orthanc_id

ADD = "mutation ($id: ID!, $labels: [String!]!) { addLabels(id: $id, labels: $labels) { labels } }"
REMOVE = ADD.replace("addLabels", "removeLabels")
COUNTS = "{ labels { label numberOfStudies } }"
UPLOADER = Principal("ann", Role.UPLOADER)
WARD = replace(UPLOADER, scope=Scope(labels=frozenset({"ward 3"})))
STUDY = orthanc_id("P1", "1.2.1")
OTHER = orthanc_id("P2", "1.2.2")


@pytest.fixture
async def stage(
    mongodb: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[QueryStage]:
    async with open_query_stage(mongodb, tmp_path_factory.mktemp("labels")) as opened:
        for number in (1, 2):
            await opened.store_patient(f"P{number}", "Huber")
            await opened.store_study(f"P{number}", number, labels=[])
        yield opened


async def label(
    stage: QueryStage, mutation: str, *labels: str, principal: Principal = UPLOADER, of: str = STUDY
) -> tuple[dict[str, Any] | None, list[str]]:
    node_id = encode_node_id("Study", of)
    return await stage.run(mutation, principal=principal, id=node_id, labels=list(labels))


async def stored(stage: QueryStage, study_id: str = STUDY) -> dict[str, Any]:
    found = await stage.runtime.database["studies"].find_one({"_id": study_id})
    assert found is not None
    return found


async def test_labels_are_given_once_in_their_order_and_taken_again(stage: QueryStage) -> None:
    before = await stored(stage)
    assert await label(stage, ADD, " b ", "a$", "b") == ({"addLabels": {"labels": ["b", "a$"]}}, [])
    given = await stored(stage)
    assert given["version"] != before["version"]
    assert given["updatedAt"] > before["updatedAt"]
    assert await label(stage, ADD, "a$", "心") == ({"addLabels": {"labels": ["b", "a$", "心"]}}, [])
    assert await label(stage, REMOVE, "b", "x") == ({"removeLabels": {"labels": ["a$", "心"]}}, [])
    unchanged = await stored(stage)
    assert await label(stage, ADD, "a$") == ({"addLabels": {"labels": ["a$", "心"]}}, [])
    assert await label(stage, REMOVE, "b") == ({"removeLabels": {"labels": ["a$", "心"]}}, [])
    assert await stored(stage) == unchanged
    assert await label(stage, REMOVE, "a$", "心") == ({"removeLabels": {"labels": []}}, [])
    assert "labels" not in await stored(stage)


@pytest.mark.parametrize("labels", [[], [" "], ["x" * 65], ["a\nb"], [str(n) for n in range(101)]])
async def test_what_is_no_label_is_refused(stage: QueryStage, labels: list[str]) -> None:
    assert await label(stage, ADD, *labels) == (None, ["INVALID_INPUT"])
    assert (await stored(stage))["labels"] == []


async def test_a_study_has_at_most_a_hundred(stage: QueryStage) -> None:
    await label(stage, ADD, *(str(number) for number in range(100)))
    assert await label(stage, ADD, "one more") == (None, ["INVALID_INPUT"])
    assert len((await stored(stage))["labels"]) == 100


async def test_labels_are_counted_searched_and_recorded(stage: QueryStage) -> None:
    await label(stage, ADD, "ward 3", "teaching")
    await label(stage, ADD, "teaching", of=OTHER)
    assert await stage.data(COUNTS) == {
        "labels": [
            {"label": "teaching", "numberOfStudies": 2},
            {"label": "ward 3", "numberOfStudies": 1},
        ]
    }
    query = "query ($f: StudyFilter) { studies(filter: $f) { nodes { orthancStudyId } } }"
    for filter_, expected in (
        ({"labels": ["ward 3", "x"]}, [STUDY]),
        ({"labels": ["ward"]}, []),
        ({"withoutLabels": True}, []),
        ({"withoutLabels": False, "labels": []}, [OTHER, STUDY]),
    ):
        found = await stage.data(query, f=filter_)
        assert sorted(one["orthancStudyId"] for one in found["studies"]["nodes"]) == sorted(
            expected
        )
        assert {one.plan.split(" ")[0] for one in await stage.asked(query, f=filter_)} == {"IXSCAN"}
    await stage.runtime.audit.flush()
    records = await AuditRecord.find({"action": "label"}).to_list()
    assert [(one.detail, one.orthanc_study_ids) for one in records] == [
        ("addLabels ward 3, teaching", [STUDY]),
        ("addLabels teaching", [OTHER]),
    ]


async def test_who_is_limited_uses_own_labels_on_own_studies_only(stage: QueryStage) -> None:
    await label(stage, ADD, "ward 3")
    assert await label(stage, ADD, "ward 4", principal=WARD) == (None, ["INVALID_INPUT"])
    assert await label(stage, ADD, "ward 3", principal=WARD, of=OTHER) == (None, ["NOT_FOUND"])
    assert await label(stage, ADD, "ward 3", of=orthanc_id("?")) == (None, ["NOT_FOUND"])
    found = await label(stage, REMOVE, "ward 3", principal=WARD)
    assert found == ({"removeLabels": {"labels": []}}, [])
    assert await label(stage, ADD, "ward 3", principal=WARD) == (None, ["NOT_FOUND"])


async def test_new_studies_of_who_is_limited_get_the_labels(stage: QueryStage) -> None:
    labels = stage.runtime.labels
    created = (await stored(stage))["createdAt"]
    await stage.runtime.database["studies"].update_many({}, {"$unset": {"labels": ""}})
    await label(stage, ADD, "theirs", of=OTHER)
    await labels.adopt([STUDY, OTHER], WARD.scope, created_since=created + timedelta(seconds=1))
    await labels.adopt([STUDY, OTHER], ALL, created_since=created)
    assert "labels" not in await stored(stage)
    await labels.adopt([STUDY, OTHER], WARD.scope, created_since=created)
    assert (await stored(stage))["labels"] == ["ward 3"]
    assert (await stored(stage, OTHER))["labels"] == ["theirs"]


async def test_a_token_may_be_limited_to_labels(stage: QueryStage, tmp_path: Path) -> None:
    store = TokenStore(stage.runtime.database)
    now = datetime.now(UTC)
    with pytest.raises(InvalidInput):
        await store.create(name="root", role=Role.ADMIN, now=now, labels=["ward 3"])
    secret = await store.create(name="w", role=Role.UPLOADER, now=now, labels=["ward 3"])
    database, none = stage.runtime.database, tmp_path / "tokens.json"
    async with open_authenticator(database, tokens_file=none) as authenticator:
        found = await authenticator.authenticate(f"Bearer {secret}")
    assert found == replace(WARD, name="w")


async def test_a_label_that_goes_takes_the_study_from_whoever_follows_it(
    stage: QueryStage,
) -> None:
    events = stage.runtime.study_events
    async with (
        events.listen(scope=WARD.scope) as listener,
        aclosing(listener.events()) as changes,
        asyncio.timeout(PATIENCE_SECONDS),
    ):
        await label(stage, ADD, "x")
        await label(stage, ADD, "ward 3")
        came = await anext(changes)
        await label(stage, REMOVE, "ward 3")
        went = await anext(changes)
    assert [(one.kind.name, one.study_id) for one in (came, went)] == [
        ("CREATED", STUDY),
        ("DELETED", STUDY),
    ]


@pytest.mark.parametrize(("has_labels", "expected"), [(True, ["PUT", "DELETE"]), (False, [])])
@respx.mock(base_url="http://orthanc.test", assert_all_called=False)
async def test_labels_that_orthanc_takes_are_mirrored_where_it_has_labels(
    stage: QueryStage, respx_mock: respx.MockRouter, has_labels: bool, expected: list[str]
) -> None:
    system = {"Version": "1.12.11", "HasLabels": has_labels}
    respx_mock.get("/system").mock(httpx.Response(200, json=system))
    changed = respx_mock.route(path=f"/studies/{STUDY}/labels/ward_3").mock(httpx.Response(200))
    async with open_http_client("http://orthanc.test", "", "") as http:
        labels = Labels(stage.runtime.database, OrthancClient(http), max_seconds=5)
        await labels.add(STUDY, ["ward_3", "ward 3", "../x"], ALL)
        await labels.remove(STUDY, ["ward_3"], ALL)
        assert [call.request.method for call in changed.calls] == expected
        # That Orthanc is away changes nothing here.
        respx_mock.get("/system").mock(side_effect=httpx.ConnectError("away"))
        assert (await labels.add(STUDY, ["x"], ALL))["labels"] == ["ward 3", "../x", "x"]
