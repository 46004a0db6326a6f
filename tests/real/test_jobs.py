"""Jobs in a real MongoDB: run, cancelled, tried again, taken over, and seen by whom they may be."""

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pymongo.asynchronous.database import AsyncDatabase

from models import AuditRecord, JobDocument, JobKind, JobState
from models.job import ACTIVE_STATES
from services.auth.roles import Principal, Role
from services.auth.scope import Scope
from services.auth.tokens import TokenStore
from services.database import open_database
from services.embedded.mongod import EmbeddedMongod
from services.errors import JobConflict, NotFound, OrthancUnavailable, TooManyRequests
from services.jobs import runner as runner_module
from services.jobs import service
from services.jobs.events import JobEvents
from services.jobs.handler import JobError, JobPostponed, NewJob, RunningJob
from services.jobs.store import JobCriteria, JobStore
from services.query.paging import PageRequest
from services.tasks import Supervisor
from tests.patience import PATIENCE_SECONDS
from tests.real.jobs_stage import (
    ADMIN,
    ANNA,
    BEN,
    Export,
    Told,
    ended_job,
    make_jobs,
    make_runner,
    running,
)
from tests.real.sync_stage import eventually

Database = AsyncDatabase[dict[str, Any]]


@pytest.fixture
async def database(mongodb: EmbeddedMongod, database_name: str) -> AsyncIterator[Database]:
    async with open_database(mongodb.url, database_name) as opened:
        yield opened


@pytest.fixture
def store(database: Database) -> JobStore:
    return JobStore(database)


def _when(condition: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def holds() -> bool:
        return condition()

    return holds


def new(**parameters: Any) -> NewJob:
    return NewJob(kind=JobKind.SEND, parameters=parameters)


async def test_a_job_runs_and_says_how_it_went(database: Database, store: JobStore) -> None:
    told, runner = Told(), None
    told.may_end.set()
    runner = make_runner(database, told)
    jobs = make_jobs(database, runner)
    async with running(runner):
        job = await jobs.start(
            NewJob(
                kind=JobKind.SEND,
                parameters={"failing": ["1.2.3"], "completed": 4},
                orthanc_study_ids=["s1", "s1"],
                study_instance_uids=["1.2"],
                total=5,
            ),
            ANNA,
            correlation_id="c0ffee",
        )
        assert job.state is JobState.QUEUED
        done = await ended_job(store, job.id)
    assert done.finished_at is not None
    assert done.expires_at is not None
    assert (done.expires_at - done.finished_at).days == 1
    assert done.model_dump(
        exclude={"id", "created_at", "started_at", "finished_at", "expires_at", "parameters"}
    ) == {
        "kind": JobKind.SEND,
        "state": JobState.PARTIAL,
        "checkpoint": {},
        "lane": None,
        "key": None,
        "once": None,
        "modality": None,
        "orthanc_study_ids": ["s1"],
        "study_instance_uids": ["1.2"],
        "result_study_ids": [],
        "total": 5,
        "completed": 4,
        "failed": 1,
        "warnings": 0,
        "error": None,
        "failures": [
            {
                "sop_instance_uid": "1.2.3",
                "error": {
                    "code": "INTERNAL_ERROR",
                    "message": "Something went wrong in the server.",
                    "dimse_status": None,
                },
            }
        ],
        "commitment": None,
        "attempts": 1,
        "next_attempt_at": None,
        "runner": None,
        "created_by": "anna",
        "role": "uploader",
        "seen_by": ["anna"],
        "scope": {"study_ids": None, "labels": None},
        "correlation_id": "c0ffee",
    }
    record = await AuditRecord.find_one({"detail": f"job {job.id} PARTIAL"})
    assert record is not None
    assert (record.action, record.principal, record.role) == ("send", "anna", "uploader")
    assert record.outcome == "ok"
    assert (record.correlation_id, record.orthanc_study_ids) == ("c0ffee", ["s1"])


async def test_no_more_jobs_run_at_once_than_may(database: Database, store: JobStore) -> None:
    told = Told()
    runner = make_runner(database, told, concurrency=2)
    jobs = make_jobs(database, runner)
    async with running(runner):
        started = [await jobs.start(new(), ANNA) for _ in range(5)]
        await told.until_begun(2)
        told.may_end.set()
        states = [(await ended_job(store, job.id)).state for job in started]
    assert states == [JobState.SUCCEEDED] * 5
    assert told.most_at_once == 2
    assert told.begun == [job.id for job in started]


async def test_principals_take_turns(database: Database, store: JobStore) -> None:
    told, jobs = Told(), make_jobs(database)
    told.may_end.set()
    anna = [await jobs.start(new(), ANNA) for _ in range(4)]
    ben = [await jobs.start(new(), BEN) for _ in range(2)]
    root = await jobs.start(new(), ADMIN)
    async with running(make_runner(database, told, concurrency=1)):
        for job in (*anna, *ben, root):
            await ended_job(store, job.id)
    turns = [anna[0], ben[0], root, anna[1], ben[1], anna[2], anna[3]]
    assert told.begun == [job.id for job in turns]


async def test_jobs_end_whose_starter_was_shut_out(database: Database, store: JobStore) -> None:
    """A token that was revoked, one whose name is another one's now, and a share that has ended."""
    now, told = datetime.now(UTC), Told()
    runner = make_runner(database, told, concurrency=4)
    jobs, tokens = make_jobs(database, runner), TokenStore(database)
    share = Principal(name="share:s1", role=Role.VIEWER)
    await tokens.create(name=ANNA.name, role=Role.UPLOADER, now=now)
    await tokens.create(name=BEN.name, role=Role.VIEWER, now=now, lifetime=timedelta(0))
    async with running(runner):
        principals = (ANNA, BEN, ADMIN, share)
        begun = [await jobs.start(new(), principal) for principal in principals]
        await told.until_begun(4)
        waiting = await jobs.start(new(), ANNA)
        await tokens.revoke(ANNA.name, now=now)
        await tokens.create(name=ADMIN.name, role=Role.ADMIN, now=now + timedelta(hours=1))
        await database["shares"].insert_one({"_id": "s1", "expiresAt": now})
        for job in (begun[0], waiting, begun[2], begun[3]):
            done = await ended_job(store, job.id)
            assert done.state is JobState.CANCELLED
            assert done.error is not None
            assert done.error.code == "ACCESS_WITHDRAWN"
        # A token that has expired was not withdrawn.
        told.may_end.set()
        assert (await ended_job(store, begun[1].id)).state is JobState.SUCCEEDED
    assert waiting.id not in told.begun


async def test_one_job_at_a_time_talks_to_a_modality_and_hanging_ones_leave_room(
    database: Database, store: JobStore
) -> None:
    hanging, export = Told(), Export()
    export.may_end.set()
    runner = make_runner(database, hanging, export, concurrency=3)
    jobs = make_jobs(database, runner)
    async with running(runner):
        sent = [
            await jobs.start(NewJob(kind=JobKind.SEND, modality=name), ANNA)
            for name in ("A", "A", "B", "C")
        ]
        await hanging.until_begun(2)
        # All modalities hang; what needs none goes on.
        local = await jobs.start(NewJob(kind=JobKind.EXPORT), ANNA)
        assert (await ended_job(store, local.id)).state is JobState.SUCCEEDED
        assert hanging.begun == [sent[0].id, sent[2].id]
        hanging.may_end.set()
        for job in sent:
            assert (await ended_job(store, job.id)).state is JobState.SUCCEEDED
    assert hanging.most_at_once == 2


async def test_a_queued_job_is_cancelled_at_once(database: Database) -> None:
    jobs = make_jobs(database)
    job = await jobs.start(new(), ANNA)
    cancelled = await jobs.cancel(job.id, ANNA)
    assert cancelled.state is JobState.CANCELLED
    assert cancelled.expires_at is not None
    with pytest.raises(JobConflict):
        await jobs.cancel(job.id, ANNA)


async def test_a_running_job_is_cancelled_and_discarded_by_its_runner(
    database: Database, store: JobStore
) -> None:
    told = Told()
    runner = make_runner(database, told)
    # Of another process: it can't wake this runner.
    jobs = make_jobs(database)
    async with running(runner):
        job = await jobs.start(new(), ANNA)
        await told.until_begun(1)
        assert (await jobs.cancel(job.id, ANNA)).state is JobState.CANCELLING
        done = await ended_job(store, job.id)
    assert done.state is JobState.CANCELLED
    assert (told.running, told.discarded) == ({}, [job.id])


async def test_errors_that_may_pass_are_tried_again_until_the_attempts_end(
    database: Database, store: JobStore
) -> None:
    told = Told()
    told.may_end.set()
    told.faults = [OrthancUnavailable(), RuntimeError("a defect")]
    runner = make_runner(database, told)
    jobs = make_jobs(database, runner)
    async with running(runner):
        job = await jobs.start(new(), ANNA)
        done = await ended_job(store, job.id)
        assert (done.state, done.attempts, done.error) == (JobState.SUCCEEDED, 3, None)
        told.faults = [OrthancUnavailable()] * 3
        job = await jobs.start(new(), ANNA)
        done = await ended_job(store, job.id)
    assert done.error is not None
    assert (done.state, done.attempts) == (JobState.FAILED, 3)
    assert done.error.code == "ORTHANC_UNAVAILABLE"
    assert told.discarded == [job.id]


async def test_an_error_that_stays_ends_the_job_at_once(
    database: Database, store: JobStore
) -> None:
    told = Told()
    told.faults = [JobError("There is nothing to send.")]
    runner = make_runner(database, told)
    jobs = make_jobs(database, runner)
    async with running(runner):
        job = await jobs.start(new(), ANNA)
        done = await ended_job(store, job.id)
        assert done.error is not None
        assert (done.state, done.attempts, done.error.message) == (
            JobState.FAILED,
            1,
            "There is nothing to send.",
        )
        told.may_end.set()
        assert (await jobs.retry(job.id, ANNA)).state is JobState.QUEUED
        done = await ended_job(store, job.id)
        assert (done.state, done.attempts, done.error) == (JobState.SUCCEEDED, 1, None)
        with pytest.raises(JobConflict):
            await jobs.retry(job.id, ANNA)


async def test_a_postponed_job_counts_no_attempt_and_can_be_cancelled(
    database: Database, store: JobStore
) -> None:
    told = Told()
    told.faults = [JobPostponed(OrthancUnavailable(), 3600)]
    runner = make_runner(database, told)
    jobs = make_jobs(database, runner)
    async with running(runner):
        job = await jobs.start(new(), ANNA)
        await told.until_begun(1)

        async def is_queued() -> bool:
            found = await store.find(job.id)
            return found is not None and found.state is JobState.QUEUED

        await eventually(is_queued)
        waiting = await store.find(job.id)
        assert waiting is not None
        assert waiting.error is not None
        assert waiting.next_attempt_at is not None
        assert (waiting.attempts, waiting.error.code) == (0, "ORTHANC_UNAVAILABLE")
        assert (await jobs.cancel(job.id, ANNA)).state is JobState.CANCELLING
        assert (await ended_job(store, job.id)).state is JobState.CANCELLED
    assert told.discarded == [job.id]


async def test_what_must_not_be_done_twice_is_answered_with_the_job_that_does_it(
    database: Database, store: JobStore
) -> None:
    told = Told()
    runner = make_runner(database, told)
    jobs = make_jobs(database, runner)
    same = NewJob(kind=JobKind.SEND, once="retrieve:PACS:1.2.3")
    first = await jobs.start(same, ANNA)
    second = await jobs.start(same, BEN)
    assert second.id == first.id
    assert await jobs.find(first.id, BEN) is not None
    with pytest.raises(NotFound):
        await jobs.cancel(first.id, BEN)
    told.may_end.set()
    async with running(runner):
        await ended_job(store, first.id)
    assert (await jobs.start(same, BEN)).id != first.id


async def test_who_did_not_start_a_job_does_not_know_of_it(database: Database) -> None:
    jobs = make_jobs(database)
    job = await jobs.start(
        NewJob(kind=JobKind.SEND, orthanc_study_ids=["s1"], study_instance_uids=["1.2"]), ANNA
    )
    for principal, seen in ((ANNA, [job.id]), (BEN, []), (ADMIN, [job.id])):
        page = await jobs.page(PageRequest(first=10), JobCriteria(), principal)
        assert [one["_id"] for one in page.documents] == seen
        assert await jobs.count(JobCriteria(), principal) == len(seen)
        found = await jobs.find(job.id, principal)
        assert [one.id for one in (found,) if one] == seen
        assert [one["_id"] for one in (await jobs.of_studies(["s1"], principal))[0]] == seen
        active = await jobs.active(study_instance_uids=["1.2"], principal=principal)
        assert [one.id for one in active] == seen
    with pytest.raises(NotFound):
        await jobs.cancel(job.id, BEN)
    with pytest.raises(NotFound):
        await jobs.retry(job.id, BEN)
    assert (await jobs.cancel(job.id, ADMIN)).state is JobState.CANCELLED


async def test_who_has_lost_a_label_does_not_see_what_was_started_under_it(
    database: Database,
) -> None:
    def anna(*labels: str) -> Principal:
        return Principal(name="anna", role=Role.UPLOADER, scope=Scope(labels=frozenset(labels)))

    jobs = make_jobs(database)
    of_trial = await jobs.start(new(), anna("trial"))
    of_both = await jobs.start(new(), anna("trial", "ward"))
    unlimited = await jobs.start(new(), ANNA)
    expected = {
        anna("trial"): {of_trial.id},
        anna("trial", "ward", "more"): {of_trial.id, of_both.id},
        anna("other"): set(),
        ANNA: {of_trial.id, of_both.id, unlimited.id},
    }
    for principal, seen in expected.items():
        page = await jobs.page(PageRequest(first=10), JobCriteria(), principal)
        assert {one["_id"] for one in page.documents} == seen
        found = [await jobs.find(one.id, principal) for one in (of_trial, of_both, unlimited)]
        assert {one.id for one in found if one} == seen


async def test_jobs_are_filtered_and_paged(database: Database) -> None:
    jobs = make_jobs(database)
    started = [
        await jobs.start(
            NewJob(kind=kind, modality=modality, study_instance_uids=[uid]),
            ANNA,
        )
        for kind, modality, uid in (
            (JobKind.SEND, "PACS", "1.1"),
            (JobKind.RETRIEVE, "PACS", "1.2"),
            (JobKind.EXPORT, None, "1.1"),
        )
    ]
    await jobs.cancel(started[2].id, ANNA)
    criteria = {
        JobCriteria(kinds=(JobKind.SEND, JobKind.EXPORT)): [2, 0],
        JobCriteria(states=(JobState.CANCELLED,)): [2],
        JobCriteria(study_instance_uid="1.1"): [2, 0],
        JobCriteria(modality="PACS"): [1, 0],
        JobCriteria(kinds=()): [],
    }
    for one, expected in criteria.items():
        page = await jobs.page(PageRequest(first=10), one, ANNA)
        ids = [document["_id"] for document in page.documents]
        assert ids == [started[index].id for index in expected]
    first = await jobs.page(PageRequest(first=2), JobCriteria(), ANNA)
    rest = await jobs.page(PageRequest(first=2, after=first.cursors[-1]), JobCriteria(), ANNA)
    assert (first.has_next_page, rest.has_next_page) == (True, False)
    assert len(first.documents) + len(rest.documents) == 3


async def test_nobody_queues_without_end(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "_ACTIVE_OF_ONE_MAX", 2)
    jobs = make_jobs(database)
    for _ in range(2):
        await jobs.start(new(), ANNA)
    with pytest.raises(TooManyRequests):
        await jobs.start(new(), ANNA)
    await jobs.start(new(), BEN)


async def test_of_two_processes_one_runs_and_the_other_goes_on_when_it_ends(
    database: Database, store: JobStore
) -> None:
    first, second = Told(), Told()
    jobs = make_jobs(database)
    one = make_runner(database, first, lease_seconds=1.5)
    other = make_runner(database, second, lease_seconds=1.5)
    async with running(other):
        async with running(one):
            job = await jobs.start(new(), ANNA)
            await eventually(_when(lambda: bool(first.begun or second.begun)))
            assert one.is_running != other.is_running
        # An orderly end is no attempt, and what was done so far stays.
        second.may_end.set()
        done = await ended_job(store, job.id)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, 1)
    assert first.discarded == second.discarded == []


async def as_a_dead_runner_left_it(
    database: Database, state: JobState, attempts: int
) -> JobDocument:
    job = await make_jobs(database).start(new(), ANNA)
    await database["jobs"].update_one(
        {"_id": job.id},
        {
            "$set": {
                "state": state,
                "attempts": attempts,
                "runner": 0,
                "startedAt": datetime.now(UTC),
                "checkpoint": {"done": ["1.2.3"]},
            }
        },
    )
    return job


async def test_a_job_of_a_process_that_died_is_begun_again_with_its_checkpoint(
    database: Database, store: JobStore
) -> None:
    seen: list[RunningJob] = []

    class Remembering(Told):
        async def run(self, job: RunningJob) -> None:
            seen.append(job)
            await super().run(job)

    told = Remembering()
    told.may_end.set()
    job = await as_a_dead_runner_left_it(database, JobState.RUNNING, 1)
    async with running(make_runner(database, told)):
        done = await ended_job(store, job.id)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, 2)
    assert seen[0].checkpoint == {"done": ["1.2.3"]}


async def test_a_job_survives_that_its_process_is_killed(
    mongodb: EmbeddedMongod, database: Database, store: JobStore
) -> None:
    job = await make_jobs(database).start(new(), ANNA)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.real.job_killing_process", mongodb.url, database.name
    )
    assert await process.wait() == -signal.SIGKILL
    left = await store.find(job.id)
    assert left is not None
    assert (left.state, left.completed, left.checkpoint) == (
        JobState.RUNNING,
        1,
        {"done": ["1.2.3"]},
    )
    told = Told()
    told.may_end.set()
    async with running(make_runner(database, told, lease_seconds=1.5)):
        done = await ended_job(store, job.id)
    assert (done.state, done.attempts) == (JobState.SUCCEEDED, 2)


async def test_a_job_that_kills_its_process_again_and_again_ends(
    database: Database, store: JobStore
) -> None:
    told = Told()
    job = await as_a_dead_runner_left_it(database, JobState.RUNNING, 3)
    async with running(make_runner(database, told)):
        done = await ended_job(store, job.id)
    assert done.error is not None
    assert (done.state, done.error.code) == (JobState.FAILED, "JOB_CRASHED")
    assert (told.begun, told.discarded) == ([], [job.id])


async def test_a_job_that_was_cancelled_while_its_process_died_is_discarded(
    database: Database, store: JobStore
) -> None:
    told = Told()
    job = await as_a_dead_runner_left_it(database, JobState.CANCELLING, 1)
    async with running(make_runner(database, told)):
        done = await ended_job(store, job.id)
    assert done.state is JobState.CANCELLED
    assert (told.begun, told.discarded) == ([], [job.id])


async def test_a_runner_that_lost_a_job_stops_and_writes_nothing(
    database: Database, store: JobStore
) -> None:
    told = Told()
    runner = make_runner(database, told)
    jobs = make_jobs(database, runner)
    async with running(runner):
        job = await jobs.start(new(), ANNA)
        await told.until_begun(1)
        (held,) = told.running.values()
        # Another process has taken the lease: its token is greater.
        await database["jobs"].update_one({"_id": job.id}, {"$set": {"runner": 10**6}})
        held.progress(completed=99)
        await eventually(_when(lambda: not told.running))
    kept = await store.find(job.id)
    assert kept is not None
    assert (kept.state, kept.completed, kept.runner) == (JobState.RUNNING, 0, 10**6)
    assert told.discarded == []


async def test_what_can_not_be_discarded_is_said(
    database: Database, store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner_module, "_AGAIN_SECONDS", 0)

    class Stuck(Told):
        async def discard(self, job: RunningJob) -> None:
            await super().discard(job)
            raise OrthancUnavailable

    told = Stuck()
    job = await as_a_dead_runner_left_it(database, JobState.CANCELLING, 1)
    async with running(make_runner(database, told)):
        done = await ended_job(store, job.id)
    assert done.error is not None
    assert (done.state, done.error.code) == (JobState.CANCELLED, "LEFTOVERS_REMAIN")
    assert told.discarded == [job.id] * 3


async def test_events_of_a_job_end_with_its_last_state(database: Database) -> None:
    told = Told()
    told.may_end.set()
    runner = make_runner(database, told)
    jobs = make_jobs(database, runner)
    events = JobEvents(database, Supervisor())
    states: list[JobState] = []
    async with running(runner), asyncio.timeout(PATIENCE_SECONDS), events.listen() as listener:
        job = await jobs.start(new(), ANNA)
        changes = listener.events()
        while not states or states[-1] in ACTIVE_STATES:
            changed = await anext(changes)
            assert changed.id == job.id
            states.append(changed.state)
        await changes.aclose()
    assert states[-1] is JobState.SUCCEEDED
