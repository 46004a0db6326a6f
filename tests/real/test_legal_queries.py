"""Queries that every limit allows, the worst of each kind, keep nobody else waiting."""

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import httpx
import pytest
from graphql import get_introspection_query
from pymongo import AsyncMongoClient

from services.settings import Settings
from tests.benchmarks.synthetic_index import IndexSize, fill, instance, study_uid
from tests.real.bystander import Guarded, resident_bytes, second_user, serve_with_tokens
from tests.real.sync_stage import eventually

SIZE = IndexSize(studies=500, series=4, instances=5)
WIDE = 10_000
"""Instances of the last study's first series."""

FRAMES = 45_000
"""Frames of the first study's first instance."""

UID = study_uid(0)
FIRST_INSTANCE = f"{UID}.0.0"
WIDE_SERIES = f"{study_uid(SIZE.studies - 1)}.0"

INSTANCE_FIELDS = """id orthancInstanceId orthancSeriesId orthancStudyId useOrthancPreview
sopInstanceUID sopClassUID sopClassName transferSyntaxUID instanceNumber rows columns bitsAllocated
photometricInterpretation windowCenter windowWidth numberOfFrames isRenderable"""


@dataclass(frozen=True, slots=True)
class Query:
    """A query, and the code of its error; None where it is answered."""

    text: str
    variables: dict[str, Any] = field(default_factory=dict)
    code: str | None = None


def aliased(count: int, selection: str) -> str:
    return " ".join(f"a{n}:{selection}" for n in range(count))


WIDE_TREE = f'{{series(seriesInstanceUID:"{WIDE_SERIES}"){{instances{{SELECTED}}}}}}'

QUERIES = {
    "text of 1 MB": Query(
        "query($t:String){" + aliased(8, "studies(filter:{text:$t}){totalCount}") + "}",
        {"t": "\ufdfa" * 300_000},
        "INVALID_INPUT",
    ),
    "text": Query(
        "query($t:String){" + aliased(20, "studies(filter:{text:$t}){totalCount}") + "}",
        {"t": "\ufdfa " * 256},
    ),
    "200,000 UIDs": Query(
        "query($u:[String!]){studies(filter:{studyInstanceUIDs:$u}){totalCount}}",
        {"u": ["1"] * 200_000},
        "LIMIT_EXCEEDED",
    ),
    "UIDs": Query(
        "query($u:[String!]){"
        + aliased(20, "studies(filter:{studyInstanceUIDs:$u}){nodes{id}}")
        + "}",
        {"u": [study_uid(n) for n in range(500)]},
    ),
    "parents with aliases": Query(
        WIDE_TREE.replace("SELECTED", aliased(15, "series{study{patient{patientName}}}")),
        code="LIMIT_EXCEEDED",
    ),
    "parents": Query(WIDE_TREE.replace("SELECTED", "id series{id study{id patient{id}}}")),
    "four wide levels": Query(
        "{"
        + aliased(4, f'series(seriesInstanceUID:"{WIDE_SERIES}"){{instances{{{INSTANCE_FIELDS}}}}}')
        + "}"
    ),
    "frames": Query(
        f'{{instance(sopInstanceUID:"{FIRST_INSTANCE}"){{frames{{index url urlExpiresAt}}}}}}'
    ),
    "many URLs of each frame": Query(
        f'{{instance(sopInstanceUID:"{FIRST_INSTANCE}")'
        "{frames(first:2500){" + aliased(20, "url(maxSize:64)") + "}}}"
    ),
    "many small lists": Query(
        "{studies(first:500){nodes{id series{id thumbnail{url} instances{id frames{url}}}}}}"
    ),
    "many windows": Query(
        "{studies(first:500){nodes{id series{id instances(first:4,offset:1){id frame{url}}}}}}"
    ),
    "many patients": Query("{patients(first:250){nodes{studies(first:40){nodes{id series{id}}}}}}"),
    "introspection": Query(get_introspection_query()),
    "introspection twice": Query(
        "{" + aliased(2, "__schema{types{fields{name args{name}}}}") + "}"
    ),
    "much to validate": Query(
        "{server{"
        + " ".join(
            "...{" + " ".join(f"{name} " for name in ("version", "storage")) + "}"
            for _ in range(40)
        )
        + "}}"
    ),
}


@pytest.fixture
async def guarded(settings: Settings) -> AsyncIterator[Guarded]:
    """A server that has looked at Orthanc, and then got an index that Orthanc knows nothing of."""
    async with serve_with_tokens(settings, SYNC_INTERVAL_SECONDS="3600") as running:
        async with running.client(running.attacker) as http:
            await answered(http, Query("mutation{synchronize{upToDate}}"))
        assert settings.mongodb_url is not None
        client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(
            settings.mongodb_url.get_secret_value()
        )
        async with client:
            database = client[settings.mongodb_database]
            await fill(database, SIZE)
            more = (instance(SIZE.studies - 1, 0, n) for n in range(SIZE.instances, WIDE))
            await database["instances"].insert_many(more)
            await database["series"].update_one(
                {"seriesInstanceUID": WIDE_SERIES}, {"$set": {"numberOfInstances": WIDE}}
            )
            await database["instances"].update_one(
                {"sopInstanceUID": FIRST_INSTANCE}, {"$set": {"numberOfFrames": FRAMES}}
            )
        yield running


async def answered(http: httpx.AsyncClient, query: Query) -> None:
    """Ask, and compare how it ended."""
    body = json.dumps({"query": query.text, "variables": query.variables}, ensure_ascii=False)
    headers = {"Content-Type": "application/json"}
    answer = await http.post("/graphql", content=body.encode(), headers=headers)
    errors = answer.json().get("errors", [])
    codes = {error["extensions"]["code"] for error in errors}
    assert codes == ({query.code} if query.code else set()), answer.text[:1000]


async def test_the_worst_legal_queries_keep_nobody_waiting(guarded: Guarded) -> None:
    too_long = {}
    async with guarded.client(guarded.attacker) as http, second_user(guarded) as user:
        before = await resident_bytes(guarded)

        async def ask(query: Query, _attempt: int) -> None:
            # One alone: of several, one works at a time (tests/services/query/test_turns.py).
            await answered(http, query)

        for name, query in QUERIES.items():
            if waits := await user.waits_beside(partial(ask, query)):
                too_long[name] = waits
    assert too_long == {}

    async def memory_is_back() -> bool:
        return await resident_bytes(guarded) - before < 300 * 1024 * 1024

    # The server gives memory back when it has been idle for a moment.
    await eventually(memory_is_back)
