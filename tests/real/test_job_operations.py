"""Jobs by GraphQL: listed, followed, cancelled and retried by those who may."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from graph.context import Context
from graph.relay import encode_node_id
from models import JobDocument, JobKind
from services.auth.roles import Principal, Role
from services.auth.scope import NOTHING, Scope
from services.embedded.mongod import EmbeddedMongod
from services.errors import TooManyRequests
from services.jobs.handler import NewJob
from tests.patience import PATIENCE_SECONDS
from tests.real.jobs_stage import ADMIN, ANNA, BEN, Told, ended, make_runner, running
from tests.real.query_stage import QueryStage, open_query_stage, orthanc_id
from tests.real.sync_stage import eventually

JOBS = """query ($filter: JobFilter) { jobs(filter: $filter) {
  totalCount nodes { id kind state createdBy fraction studies { id } } pageInfo { hasNextPage }
} }"""
JOB = "query ($id: ID!) { job(id: $id) { id state } node(id: $id) { id } }"
OF_STUDY = "query ($id: ID!) { node(id: $id) { ... on Study { jobs { id } } } }"
CANCEL = "mutation ($id: ID!) { cancelJob(id: $id) { state } }"
RETRY = CANCEL.replace("cancelJob", "retryJob")
CANCEL_ALL = "mutation ($name: String!) { cancelJobs(createdBy: $name) }"
EVENTS = "subscription ($id: ID) { jobEvents(id: $id) { id state completed } }"
URL = "query ($id: ID!) { job(id: $id) { url urlExpiresAt } }"
STUDY = orthanc_id("P1", "1.2.1")
SHARE = Principal("share:1", BEN.role, scope=NOTHING, share_id="1")


@pytest.fixture
async def stage(
    mongodb: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[QueryStage]:
    async with open_query_stage(mongodb, tmp_path_factory.mktemp("jobs")) as opened:
        await opened.store_patient("P1", "Huber")
        await opened.store_study("P1", 1, labels=[])
        yield opened


async def started(stage: QueryStage, **parameters: Any) -> JobDocument:
    return await stage.runtime.jobs.start(
        NewJob(
            kind=JobKind.SEND,
            parameters=parameters,
            orthanc_study_ids=[STUDY],
            study_instance_uids=["1.2.1"],
            total=4,
        ),
        ANNA,
    )


async def test_who_started_a_job_and_administrators_see_it(stage: QueryStage) -> None:
    job = await started(stage)
    node_id = encode_node_id("Job", job.id)
    shown = {
        "id": node_id,
        "kind": "SEND",
        "state": "QUEUED",
        "createdBy": "anna",
        "fraction": 0.0,
        "studies": [{"id": encode_node_id("Study", STUDY)}],
    }
    for principal, seen in ((ANNA, True), (ADMIN, True), (BEN, False), (SHARE, False)):
        data = await stage.data(JOBS, principal=principal)
        nodes = [shown] if seen else []
        assert data["jobs"] == {
            "totalCount": len(nodes),
            "nodes": nodes,
            "pageInfo": {"hasNextPage": False},
        }
        found = await stage.data(JOB, principal=principal, id=node_id)
        assert found == {
            "job": {"id": node_id, "state": "QUEUED"} if seen else None,
            "node": {"id": node_id} if seen else None,
        }
        if principal is not SHARE:
            of_study = await stage.data(
                OF_STUDY, principal=principal, id=encode_node_id("Study", STUDY)
            )
            assert of_study["node"]["jobs"] == ([{"id": node_id}] if seen else [])
    filtered = await stage.data(JOBS, principal=ANNA, filter={"kinds": ["EXPORT"]})
    assert filtered["jobs"]["nodes"] == []


async def test_only_its_starter_and_administrators_end_a_job(stage: QueryStage) -> None:
    job = await started(stage)
    node_id = encode_node_id("Job", job.id)
    for principal, mutation, codes in (
        (BEN, CANCEL, ["NOT_FOUND"]),
        (BEN, RETRY, ["NOT_FOUND"]),
        (ANNA, RETRY, ["JOB_CONFLICT"]),
        (ANNA, CANCEL, []),
        (ADMIN, CANCEL, ["JOB_CONFLICT"]),
        (ADMIN, RETRY, []),
    ):
        _, found = await stage.run(mutation, principal=principal, id=node_id)
        assert found == codes, (principal.name, mutation)
    _, codes = await stage.run(CANCEL, principal=ANNA, id=encode_node_id("Study", STUDY))
    assert codes == ["INVALID_INPUT"]
    await stage.runtime.audit.flush()
    records = await stage.runtime.database["audit"].find({"action": "job"}).to_list()
    assert [record["outcome"] for record in records] == [
        "NOT_FOUND", "NOT_FOUND", "JOB_CONFLICT", "ok", "JOB_CONFLICT", "ok", "INVALID_INPUT",
    ]  # fmt: skip


async def test_an_administrator_ends_all_jobs_of_one_person(stage: QueryStage) -> None:
    jobs = [await started(stage) for _ in range(2)]
    await stage.runtime.jobs.start(NewJob(kind=JobKind.EXPORT), BEN)
    for name, count in ((ANNA.name, 2), (ANNA.name, 0), ("nobody", 0)):
        data = await stage.data(CANCEL_ALL, principal=ADMIN, name=name)
        assert data == {"cancelJobs": count}
    states = {one["createdBy"]: one["state"] async for one in stage.runtime.database["jobs"].find()}
    assert states == {"anna": "CANCELLING", "ben": "QUEUED"}
    async with running(make_runner(stage.runtime.database, Told())):
        for job in jobs:
            assert (await ended(stage.runtime, job.id)).state == "CANCELLED"


async def test_who_has_lost_a_role_does_not_retry_what_needed_it(stage: QueryStage) -> None:
    node_id = encode_node_id("Job", (await started(stage)).id)
    await stage.data(CANCEL, principal=ANNA, id=node_id)
    _, codes = await stage.run(RETRY, principal=replace(ANNA, role=Role.VIEWER), id=node_id)
    assert codes == ["FORBIDDEN"]


async def test_a_viewer_does_not_fill_the_queue_of_all(stage: QueryStage) -> None:
    jobs, new = stage.runtime.jobs, NewJob(kind=JobKind.EXPORT)
    for _ in range(20):
        await jobs.start(new, BEN)
    with pytest.raises(TooManyRequests):
        await jobs.start(new, BEN)
    await jobs.start(new, ANNA)


async def test_an_export_ends_for_who_no_longer_sees_its_studies(stage: QueryStage) -> None:
    """A label that was taken away ends what was prepared under it."""
    principal = replace(BEN, scope=Scope(labels=frozenset({"ward"})))
    studies = stage.runtime.database["studies"]
    await studies.update_one({"_id": STUDY}, {"$set": {"labels": ["ward"]}})
    new = NewJob(kind=JobKind.EXPORT, parameters={"format": "ZIP"}, orthanc_study_ids=[STUDY])
    job = await stage.runtime.jobs.start(new, principal)
    ended_now = {"state": "SUCCEEDED", "finishedAt": datetime.now(UTC)}
    await stage.runtime.database["jobs"].update_one({"_id": job.id}, {"$set": ended_now})
    node_id = encode_node_id("Job", job.id)
    found = await stage.data(URL, principal=principal, id=node_id)
    assert found["job"]["url"] is not None
    await studies.update_one({"_id": STUDY}, {"$set": {"labels": []}})
    found = await stage.data(URL, principal=principal, id=node_id)
    assert found == {"job": {"url": None, "urlExpiresAt": None}}


def events(stage: QueryStage, principal: Principal, **variables: object) -> Any:  # noqa: ANN401  # Strawberry's stream
    context = Context(runtime=stage.runtime, principal=principal, base_url="http://here")
    return stage.schema.subscribe(EVENTS, variables, context_value=context)


async def test_a_job_is_followed_to_its_end_by_those_who_may(stage: QueryStage) -> None:
    told = Told()
    job = await started(stage, completed=4)
    node_id = encode_node_id("Job", job.id)
    states: list[str] = []
    others: list[Any] = []

    async def follow(principal: Principal, into: list[Any], **variables: object) -> None:
        async for event in await events(stage, principal, **variables):
            assert event.errors is None
            into.append(event.data["jobEvents"]["state"])
            if event.data["jobEvents"]["state"] == "SUCCEEDED":
                return

    async def all_listen() -> bool:
        events_of_jobs = stage.runtime.job_events
        is_open = events_of_jobs._stream._is_open.is_set()
        return bool(states) and is_open and len(events_of_jobs._listeners) == 3

    async with asyncio.timeout(PATIENCE_SECONDS):
        following = asyncio.create_task(follow(ANNA, states, id=node_id))
        admin: list[str] = []
        everything = asyncio.create_task(follow(ADMIN, admin))
        stranger = asyncio.create_task(follow(BEN, others))
        await eventually(all_listen)
        async with running(make_runner(stage.runtime.database, told)):
            await told.until_begun(1)
            told.may_end.set()
            await ended(stage.runtime, job.id)
            await following
            await everything
    stranger.cancel()
    await asyncio.gather(stranger, return_exceptions=True)
    # First as it is, then each change, at last the end.
    assert (states[0], states[-1]) == ("QUEUED", "SUCCEEDED")
    assert admin[-1] == "SUCCEEDED"
    assert others == []


async def test_nobody_follows_a_job_of_others(stage: QueryStage) -> None:
    job = await started(stage)
    stream = await events(stage, BEN, id=encode_node_id("Job", job.id))
    refused = await anext(stream)
    assert [(error.extensions or {})["code"] for error in refused.errors] == ["NOT_FOUND"]
    assert not stage.runtime.job_events._listeners
