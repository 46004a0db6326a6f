"""Studies are fetched from archives: whole, in part, cancelled, and from archives that die."""

import asyncio
import io
import os
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.dataset import Dataset

from graph.relay import decode_node_id
from graph.schema import build_schema
from models import JobDocument, JobState
from models.modality import RetrieveMethod
from services.auth.roles import LOCAL_ADMIN
from services.ingest.service import SentFile
from services.jobs.runner import JobRunner
from services.modalities.declaration import check_declaration
from services.modalities.retrieve import RetrieveJobs, new_retrieve
from services.modalities.sources import StudySources
from services.runtime import Runtime
from tests.dicom_peers import FakeArchive
from tests.patience import PATIENCE_SECONDS
from tests.real.jobs_stage import ended, make_runner, running
from tests.real.modality_stage import make_archive, running_archive
from tests.real.query_stage import QueryStage
from tests.real.sync_stage import eventually, instance_bytes
from tests.real.sync_stage import running as following

STUDY = "1.2.826.0.1.3680043.8.498.{}".format
KILLED_STUDIES = int(os.environ.get("KILLED_STUDIES", "4"))
"""Studies that are fetched while their archive is killed twice."""

pytestmark = pytest.mark.usefixtures("runner")

RETRIEVE = """mutation ($studies: [String!]!) {
  retrieveStudies(modality: "pacs", studyInstanceUIDs: $studies) { id state modality { name } }
}"""
JOB = """query ($id: ID!) { job(id: $id) {
  state total completed failed fraction error { code }
  failures { sopInstanceUID error { code message dimseStatus } }
  results { studyInstanceUID numberOfInstances }
} }"""


@pytest.fixture
def stage(runtime: Runtime) -> QueryStage:
    return QueryStage(runtime, build_schema(runtime.settings))


@pytest.fixture
async def runner(runtime: Runtime) -> AsyncIterator[JobRunner]:
    """Runs jobs, and tries failed ones again at once."""
    handler = RetrieveJobs(
        runtime.modalities, runtime.ingest, runtime.database, file_bytes_max=1 << 30
    )
    runner = make_runner(runtime.database, handler, attempts_max=2)
    runtime.jobs._on_queued = runner.wake
    async with running(runner):
        yield runner


async def declare(
    runtime: Runtime,
    port: int,
    *,
    ae_title: str = "PEER",
    method: RetrieveMethod = RetrieveMethod.AUTO,
    timeout_seconds: int = 5,
) -> None:
    declaration = check_declaration(
        name="pacs",
        ae_title=ae_title,
        host="127.0.0.1",
        port=port,
        allows=None,
        retrieve_method=method,
        timeout_seconds=timeout_seconds,
        description=None,
    )
    await runtime.modalities.declare(declaration)


async def retrieve(runtime: Runtime, *studies: int) -> str:
    new = new_retrieve("pacs", [STUDY(number) for number in studies], [])
    return (await runtime.jobs.start(new, LOCAL_ADMIN)).id


async def until(runtime: Runtime, job_id: str, is_so: Callable[[JobDocument], bool]) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            job = await runtime.jobs.find(job_id, LOCAL_ADMIN)
            assert job is not None
            if is_so(job):
                return
            await asyncio.sleep(0.02)


def dataset(study: int, series: int, number: int) -> Dataset:
    read: Dataset = pydicom.dcmread(io.BytesIO(instance_bytes(study, series, number)))
    return read


def archive_of(datasets: Iterable[Dataset], **how: Any) -> FakeArchive:
    return FakeArchive({str(one.SOPInstanceUID): one for one in datasets}, **how)


async def test_a_study_comes_by_c_get_without_what_is_here_already(
    stage: QueryStage, runtime: Runtime, tmp_path: Path
) -> None:
    files = [instance_bytes(1, series, number) for series in (1, 2) for number in (1, 2)]
    await runtime.ingest.store([SentFile("one", lambda: io.BytesIO(files[0]))])
    async with running_archive(tmp_path / "archive", files) as archive:
        await declare(runtime, archive.port, ae_title="ARCHIVE", method=RetrieveMethod.GET)
        started = (await stage.data(RETRIEVE, studies=[STUDY(1)]))["retrieveStudies"]
        assert started["modality"] == {"name": "pacs"}
        again = (await stage.data(RETRIEVE, studies=[STUDY(1)]))["retrieveStudies"]
        job = await stage.data(JOB, id=started["id"])
        node = started["id"]
        await ended(runtime, _local(node))
        job = (await stage.data(JOB, id=node))["job"]
    assert again["id"] == started["id"] or job["state"] == "SUCCEEDED"
    assert job == {
        "state": "SUCCEEDED",
        "total": 4,
        "completed": 4,
        "failed": 0,
        "fraction": 1.0,
        "error": None,
        "failures": [],
        "results": [{"studyInstanceUID": STUDY(1), "numberOfInstances": 4}],
    }
    records = await runtime.database["audit"].find({"action": "retrieve"}).to_list()
    assert {record["outcome"] for record in records} == {"ok"}
    # No rule sends back what was fetched.
    [study] = await runtime.database["studies"].find().to_list()
    sources = StudySources(runtime.database, runtime.orthanc)
    assert len(await sources.from_application("ARCHIVE", study["_id"])) == 3
    assert not await sources.from_application("OTHER", study["_id"])


def _local(node_id: str) -> str:
    decoded = decode_node_id(node_id)
    assert decoded is not None
    return decoded[1]


async def test_a_study_comes_by_c_move_where_c_get_is_not_offered(
    runtime: Runtime,
) -> None:
    listener = await runtime.modalities.listener()
    assert listener.port is not None
    archive = archive_of(
        [dataset(2, 1, number) for number in range(1, 6)],
        offers_get=False,
        destination=("127.0.0.1", listener.port),
    )
    assert runtime.sync is not None
    with archive.running() as port:
        await declare(runtime, port)
        async with following(runtime.sync):
            job = await ended(runtime, await retrieve(runtime, 2))
    assert (job.state, job.total, job.completed) == (JobState.SUCCEEDED, 5, 5), job.error


async def test_a_destination_that_is_not_known_is_told(runtime: Runtime) -> None:
    archive = archive_of([dataset(2, 1, 1)], offers_get=False)
    with archive.running() as port:
        await declare(runtime, port)
        job = await ended(runtime, await retrieve(runtime, 2))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert (job.error.code, job.error.dimse_status) == ("MODALITY_REFUSED", "A801")
    assert "Enter this server's AE title there" in job.error.message


async def test_a_partial_retrieve_names_what_failed_and_a_retry_fetches_only_that(
    runtime: Runtime,
) -> None:
    datasets = [dataset(3, series, number) for series in (1, 2) for number in (1, 2, 3)]
    failing = {str(datasets[1].SOPInstanceUID), str(datasets[4].SOPInstanceUID)}
    archive = archive_of(datasets, failing=failing)
    with archive.running() as port:
        await declare(runtime, port, method=RetrieveMethod.GET)
        job = await ended(runtime, await retrieve(runtime, 3))
        assert (job.state, job.total, job.completed, job.failed) == (JobState.PARTIAL, 6, 4, 2)
        assert {one.sop_instance_uid for one in job.failures} == failing
        assert {one.error.code for one in job.failures} == {"MODALITY_REFUSED"}
        archive.failing, archive.sent, archive.requests = set(), [], []
        await runtime.jobs.retry(job.id, LOCAL_ADMIN)
        job = await ended(runtime, job.id)
    assert (job.state, job.completed, job.failed) == (JobState.SUCCEEDED, 6, 0)
    assert set(archive.sent) == failing
    assert archive.requests == [("IMAGE", "1"), ("IMAGE", "1")]


async def test_a_cancelled_retrieve_stops_the_archive(
    runtime: Runtime,
) -> None:
    archive = archive_of([dataset(4, 1, number) for number in range(25)], delay_seconds=0.3)
    with archive.running() as port:
        await declare(runtime, port)
        job_id = await retrieve(runtime, 4)
        await until(runtime, job_id, lambda job: job.completed >= 3)
        await runtime.jobs.cancel(job_id, LOCAL_ADMIN)
        # pynetdicom makes no use of threads here that could be waited for.
        loop = asyncio.get_running_loop()
        assert await loop.run_in_executor(None, archive.cancelled.wait, PATIENCE_SECONDS)
        job = await ended(runtime, job_id)
        assert job.state is JobState.CANCELLED
        sent = len(archive.sent)
        assert sent < 25
        archive.delay_seconds = 0
        await runtime.jobs.retry(job_id, LOCAL_ADMIN)
        job = await ended(runtime, job_id)
    assert (job.state, job.completed) == (JobState.SUCCEEDED, 25)
    assert len(archive.sent) <= 26


async def test_an_archive_that_aborts_is_asked_again_for_the_rest(
    runtime: Runtime,
) -> None:
    archive = archive_of([dataset(5, 1, number) for number in range(9)], abort_after=5)
    with archive.running() as port:
        await declare(runtime, port, method=RetrieveMethod.GET)
        job = await ended(runtime, await retrieve(runtime, 5))
    assert (job.state, job.completed, job.attempts) == (JobState.SUCCEEDED, 9, 2)
    assert len(archive.sent) == len(set(archive.sent)) == 9


async def test_everything_is_here_after_the_archive_was_killed_twice(
    runtime: Runtime, tmp_path: Path
) -> None:
    studies = range(100, 100 + KILLED_STUDIES)
    files = [instance_bytes(study, 1, number) for study in studies for number in (1, 2)]
    stopped = await make_archive(tmp_path / "archive", files)
    port = stopped.archive.port
    await declare(runtime, port, ae_title="ARCHIVE", method=RetrieveMethod.GET)
    job_id = await retrieve(runtime, *studies)
    for reached in (len(files) // 4, len(files) // 2):
        # It is killed at the end of the block.
        async with stopped.running():
            await until_completed(runtime, job_id, reached)
    async with stopped.running():
        await until_completed(runtime, job_id, len(files))
        job = await ended(runtime, job_id)
    assert (job.state, job.failed) == (JobState.SUCCEEDED, 0), job.error
    assert await runtime.database["instances"].count_documents({}) == len(files)
    assert len(job.result_study_ids) == KILLED_STUDIES


async def until_completed(runtime: Runtime, job_id: str, count: int) -> None:
    """Wait until so many have come; retry a job whose archive was down for all its attempts."""

    async def is_so() -> bool:
        job = await runtime.jobs.find(job_id, LOCAL_ADMIN)
        assert job is not None
        if job.state is JobState.FAILED:
            await runtime.jobs.retry(job_id, LOCAL_ADMIN)
        return job.completed >= count

    await eventually(is_so, within_seconds=PATIENCE_SECONDS + 3 * KILLED_STUDIES)


async def test_an_archive_that_hangs_fails_the_job_in_time(
    runtime: Runtime,
) -> None:
    archive = archive_of([dataset(6, 1, 1)], delay_seconds=1.5)
    with archive.running() as port:
        await declare(runtime, port, timeout_seconds=1)
        job = await ended(runtime, await retrieve(runtime, 6))
    assert job.state is JobState.FAILED
    assert job.error is not None
    assert job.error.code == "MODALITY_TIMED_OUT"


async def test_files_of_an_archive_pass_the_checks_of_uploads(
    runtime: Runtime,
) -> None:
    hostile = dataset(7, 1, 1)
    inner = hostile
    for _ in range(60):
        item = Dataset()
        inner.RequestAttributesSequence = [item]
        inner = item
    archive = archive_of([hostile, dataset(7, 1, 2)])
    with archive.running() as port:
        await declare(runtime, port, method=RetrieveMethod.GET)
        job = await ended(runtime, await retrieve(runtime, 7))
    assert (job.state, job.completed, job.failed) == (JobState.PARTIAL, 1, 1)
    [failure] = job.failures
    assert failure.sop_instance_uid == hostile.SOPInstanceUID
    assert "nest" in failure.error.message.lower()


@pytest.mark.parametrize("keyword", ["PatientID", "StudyInstanceUID"])
async def test_a_file_that_was_not_asked_for_is_not_stored(runtime: Runtime, keyword: str) -> None:
    """Not of another patient or study, whatever the archive calls it."""
    asked, other = dataset(8, 1, 1), dataset(8, 1, 1)
    setattr(other, keyword, "1.2.3")
    archive = archive_of([asked], impostors={str(asked.SOPInstanceUID): other})
    with archive.running() as port:
        await declare(runtime, port, method=RetrieveMethod.GET)
        job = await ended(runtime, await retrieve(runtime, 8))
    assert (job.state, job.completed) == (JobState.FAILED, 0)
    assert [one.error.code for one in job.failures] == ["NOT_REQUESTED"]
    assert await runtime.database["instances"].count_documents({}) == 0


async def test_a_study_that_the_archive_does_not_have_is_told(
    runtime: Runtime,
) -> None:
    archive = archive_of([dataset(8, 1, 1)])
    with archive.running() as port:
        await declare(runtime, port)
        job = await ended(runtime, await retrieve(runtime, 8, 9))
    assert (job.state, job.completed, job.failed) == (JobState.PARTIAL, 1, 1)
    assert job.failures[0].error.code == "NOT_FOUND"
