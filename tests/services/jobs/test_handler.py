"""What a handler reports, and which errors are tried again."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from models import DicomErrorRecord, JobDocument, JobKind, JobState
from models.job import JobScope
from services.auth.scope import Scope
from services.errors import DatabaseUnavailable, Error, NotFound, OrthancUnavailable
from services.jobs.handler import (
    FAILURES_MAX,
    JobError,
    JobPostponed,
    RunningJob,
    error_record,
    may_pass,
)


class Rejected(JobError):
    code = "MODALITY_REJECTED"
    default_message = "It does not know this AE title."
    may_pass = True


def document(**fields: Any) -> JobDocument:
    made: JobDocument = JobDocument.model_construct(
        id="0" * 16,
        kind=JobKind.SEND,
        state=JobState.RUNNING,
        created_at=datetime(2026, 11, 27, tzinfo=UTC),
        created_by="anna",
        role="uploader",
        correlation_id="c0ffee",
        **fields,
    )
    return made


class Written:
    """Takes what a job stores, or fails."""

    def __init__(self) -> None:
        self.changes: list[Mapping[str, Any]] = []
        self.fault: Error | None = None

    async def __call__(self, changes: Mapping[str, Any]) -> None:
        if self.fault is not None:
            raise self.fault
        self.changes.append(changes)


async def test_progress_is_stored_once_and_only_what_changed() -> None:
    written = Written()
    job = RunningJob(document(), written)
    await job.flush()
    job.progress(total=40)
    job.advance()
    job.advance(2)
    job.add_results("a", "b")
    job.add_results("b", "c")
    await job.flush()
    await job.flush()
    assert written.changes == [
        {"total": 40, "completed": 3, "result_study_ids": ["a", "b", "c"]},
    ]


async def test_a_hundred_failures_are_kept_and_all_are_counted() -> None:
    written = Written()
    job = RunningJob(document(), written)
    for number in range(FAILURES_MAX + 5):
        job.fail(f"1.2.{number}", Rejected())
    await job.flush()
    (changes,) = written.changes
    assert changes["failed"] == FAILURES_MAX + 5
    assert len(changes["failures"]) == FAILURES_MAX
    assert changes["failures"][0]["sopInstanceUID"] == "1.2.0"
    assert changes["failures"][0]["error"]["code"] == "MODALITY_REJECTED"


async def test_what_could_not_be_stored_is_stored_later_with_what_came_since() -> None:
    written = Written()
    job = RunningJob(document(), written)
    job.progress(completed=1, total=9)
    written.fault = DatabaseUnavailable()
    with pytest.raises(DatabaseUnavailable):
        await job.save({"done": [1]})
    written.fault = None
    job.advance()
    await job.flush()
    assert written.changes == [{"completed": 2, "total": 9, "checkpoint": {"done": [1]}}]


def test_the_next_attempt_has_the_checkpoint_and_the_results_of_the_one_before() -> None:
    job = RunningJob(
        document(checkpoint={"done": [1]}, result_study_ids=["a"], attempts=2, completed=7),
        Written(),
    )
    assert (job.checkpoint, job.result_study_ids, job.attempt) == ({"done": [1]}, ("a",), 2)
    assert job.completed == 0


def test_a_job_acts_within_the_scope_of_its_starter_and_never_as_administrator() -> None:
    job = RunningJob(document(scope=JobScope(labels=["trial"])), Written())
    assert job.principal.scope == Scope(labels=frozenset({"trial"}))
    assert job.principal.role.name == "UPLOADER"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Rejected(), True),
        (JobError(), False),
        (OrthancUnavailable(), True),
        (DatabaseUnavailable(), True),
        (NotFound("There is no such study."), False),
        (RuntimeError("a defect"), True),
    ],
)
def test_errors_that_may_pass_are_tried_again(error: Exception, expected: bool) -> None:
    assert may_pass(error) is expected


def test_a_defect_shows_nothing_of_itself() -> None:
    assert error_record(ValueError("Doe^Jane")) == DicomErrorRecord(
        code="INTERNAL_ERROR", message="Something went wrong in the server."
    )


def test_the_status_of_a_peer_is_kept() -> None:
    error = Rejected()
    error.dimse_status = "A801"
    assert error_record(error).dimse_status == "A801"
    assert JobPostponed(error, 60).error is error
