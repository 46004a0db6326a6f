"""How often a job is sent, and what waits for a slow listener."""

from datetime import UTC, datetime

import pytest

from models import JobDocument, JobKind, JobState
from services.errors import LimitExceeded
from services.jobs.events import LISTENER_MAX_JOBS, JobListener, JobPacing


def job(completed: int, job_id: str = "a", kind: JobKind = JobKind.SEND) -> JobDocument:
    made: JobDocument = JobDocument.model_construct(
        id=job_id,
        kind=kind,
        state=JobState.RUNNING,
        completed=completed,
        created_at=datetime(2026, 11, 27, tzinfo=UTC),
        created_by="anna",
        role="uploader",
        correlation_id="c0ffee",
    )
    return made


def test_a_job_is_sent_once_a_second_as_it_is_then() -> None:
    pacing = JobPacing()
    pacing.add(job(1))
    assert [one.completed for one in pacing.due(10.0)] == [1]
    pacing.add(job(2))
    pacing.add(job(3))
    assert pacing.due(10.9) == []
    assert [one.completed for one in pacing.due(11.0)] == [3]


def test_the_last_change_is_always_sent() -> None:
    pacing = JobPacing()
    pacing.add(job(1))
    pacing.due(10.0)
    pacing.add(job(2))
    assert [[one.completed for one in pacing.due(at)] for at in (10.5, 11.5, 12.5)] == [[], [2], []]


def test_jobs_do_not_wait_for_one_another() -> None:
    pacing = JobPacing()
    pacing.add(job(1, "a"))
    pacing.due(10.0)
    pacing.add(job(2, "a"))
    pacing.add(job(7, "b"))
    assert [one.id for one in pacing.due(10.5)] == ["b"]


def test_a_job_that_rests_is_forgotten() -> None:
    pacing = JobPacing()
    pacing.add(job(1))
    pacing.due(10.0)
    pacing.due(11.0)
    assert not pacing._paced


async def test_a_listener_gets_the_latest_of_each_job() -> None:
    listener = JobListener(None, None)
    for completed in range(5):
        listener.add(job(completed, "a"))
        listener.add(job(completed + 10, "b"))
    events = listener.events()
    assert [(await anext(events)).completed for _ in range(2)] == [4, 14]
    await events.aclose()


async def test_a_listener_gets_what_it_asked_for() -> None:
    listener = JobListener("a", [JobKind.EXPORT])
    listener.add(job(1, "b", JobKind.EXPORT))
    listener.add(job(2, "a", JobKind.SEND))
    listener.add(job(3, "a", JobKind.EXPORT))
    events = listener.events()
    assert (await anext(events)).completed == 3
    await events.aclose()


@pytest.mark.no_cover
async def test_a_listener_that_does_not_read_gets_an_error() -> None:
    listener = JobListener(None, None)
    for number in range(LISTENER_MAX_JOBS + 1):
        listener.add(job(1, str(number)))
    events = listener.events()
    with pytest.raises(LimitExceeded):
        await anext(events)
