"""Anonymising studies on a real Orthanc: every file that comes of it is read."""

import asyncio
import io
from collections.abc import AsyncIterator, Sequence
from typing import Any, BinaryIO

import pytest
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from graph.relay import decode_node_id, encode_node_id
from models import JobDocument, JobState, StudyDocument
from services.anonymization.options import AnonymizationOptions
from services.auth.roles import Principal, Role
from services.auth.scope import ALL, Scope
from services.deletion import Level
from services.errors import InvalidInput, OrthancUnavailable
from services.ingest.results import StoreResult
from services.ingest.service import SentFile
from services.jobs.handler import RunningJob
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from services.study_files import StudyFiles
from tests.planted import found_in, planted_image, planted_report, written
from tests.real.jobs_stage import ANNA, ended, running_jobs
from tests.real.sync_stage import eventually
from tests.servers import RunningServer
from tests.tokens import give_tokens

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

START = """mutation ($id: ID!, $input: AnonymizeInput!) {
  anonymizeStudy(id: $id, input: $input) { id state kind createdBy studies { id } results { id } }
}"""
FOLLOW = """query ($id: ID!) { job(id: $id) {
  state total completed failed fraction error { code } failures { sopInstanceUID error { code } }
  results { id studyInstanceUID numberOfInstances patientName patient { patientID }
    anonymizedFrom { id } jobs { id } }
} }"""


@pytest.fixture
def tokens(settings: Settings) -> dict[str, str]:
    return give_tokens(settings, **{role.name.lower(): role for role in Role})


@pytest.fixture
async def runtime(settings: Settings, tokens: dict[str, str]) -> AsyncIterator[Runtime]:
    assert tokens
    async with open_runtime(settings) as opened:
        yield opened


async def stored(runtime: Runtime, *files: FileDataset) -> list[str]:
    """Store files; returns Orthanc's identifiers of their studies."""
    contents = [written(file) for file in files]
    sent = [SentFile(str(n), lambda c=c: io.BytesIO(c)) for n, c in enumerate(contents)]  # type: ignore[misc]  # a default binds the content
    results = await runtime.ingest.store(sent)
    assert [result.error for result in results] == [None] * len(files)
    return list(dict.fromkeys(result.study_id or "" for result in results))


def images(study_uid: str, count: int) -> list[FileDataset]:
    series_uid = generate_uid()
    return [planted_image(study_uid, series_uid, number) for number in range(1, count + 1)]


async def files_of(runtime: Runtime, study_id: str) -> list[bytes]:
    """Read every file of a study from Orthanc."""
    assert runtime.orthanc is not None
    contents = []
    for series in await runtime.orthanc.study_series(study_id):
        for instance_id in series.instance_ids:
            async with runtime.orthanc.instance_file(instance_id) as chunks:
                contents.append(b"".join([chunk async for chunk in chunks]))
    return contents


async def start(
    runtime: Runtime, study_id: str, principal: Principal = ANNA, **options: Any
) -> JobDocument:
    study = await runtime.database["studies"].find_one({"_id": study_id})
    assert study is not None
    return await runtime.anonymizations.start(
        study, AnonymizationOptions(**options), principal, correlation_id="c0ffee"
    )


async def anonymized(
    runtime: Runtime, study_id: str, principal: Principal = ANNA, **options: Any
) -> JobDocument:
    job = await start(runtime, study_id, principal, **options)
    return await ended(runtime, job.id)


async def study_of(runtime: Runtime, job: JobDocument) -> StudyDocument:
    (study_id,) = job.result_study_ids
    found = await runtime.database["studies"].find_one({"_id": study_id})
    assert found is not None
    return StudyDocument.model_validate(found)


async def ask(server: RunningServer, token: str, query: str, **variables: object) -> dict[str, Any]:
    response = await server.http.post(
        "/graphql",
        json={"query": query, "variables": variables},
        headers={"Authorization": f"Bearer {token}"},
    )
    answer: dict[str, Any] = response.json()
    return answer


async def test_a_study_is_anonymised_over_http_and_no_file_of_it_holds_what_was_planted(
    server: RunningServer, runtime: Runtime, tokens: dict[str, str]
) -> None:
    study_uid = generate_uid()
    sources = [*images(study_uid, 3), planted_report(study_uid)]
    (study_id,) = await stored(runtime, *sources)
    node_id = encode_node_id("Study", study_id)
    async with running_jobs(runtime):
        started = await ask(server, tokens["uploader"], START, id=node_id, input={})
        job = started["data"]["anonymizeStudy"]
        assert (job["kind"], job["createdBy"]) == ("ANONYMIZE", "uploader")
        assert job["studies"] == [{"id": node_id}]
        _, job_id = decode_node_id(job["id"]) or ("", "")
        await ended(runtime, job_id)
    followed = (await ask(server, tokens["uploader"], FOLLOW, id=job["id"]))["data"]["job"]
    (result,) = followed.pop("results")
    assert followed == {
        "state": "SUCCEEDED",
        "total": 4,
        "completed": 4,
        "failed": 0,
        "fraction": 1.0,
        "error": None,
        "failures": [],
    }
    assert result["numberOfInstances"] == 4
    assert result["patientName"] == result["patient"]["patientID"]
    assert result["patientName"].startswith("ANON-")
    # The link to the source is for administrators alone.
    assert result["anonymizedFrom"] is None
    assert result["jobs"] == [{"id": job["id"]}]
    as_admin = (await ask(server, tokens["admin"], FOLLOW, id=job["id"]))["data"]["job"]
    assert as_admin["results"][0]["anonymizedFrom"] == {"id": node_id}
    as_viewer = await ask(server, tokens["viewer"], FOLLOW, id=job["id"])
    assert as_viewer["data"] == {"job": None}

    _, result_id = decode_node_id(result["id"]) or ("", "")
    contents = await files_of(runtime, result_id)
    assert len(contents) == 4
    uids = {source.SOPInstanceUID for source in sources} | {study_uid}
    for content in contents:
        assert list(found_in(content)) == []
        assert [uid for uid in uids if uid.encode() in content] == []
    # Nor does the index.
    for collection in ("studies", "series", "instances", "patients"):
        ids = {"$or": [{"_id": result_id}, {"orthancStudyId": result_id}]}
        for document in await runtime.database[collection].find(ids).to_list():
            assert list(found_in(str(document).encode())) == []
    records = await runtime.database["audit"].find({"action": "anonymize"}).to_list()
    assert {record["outcome"] for record in records} == {"ok"}
    assert len({record["correlationID"] for record in records}) == 1
    assert [list(found_in(str(record).encode())) for record in records] == [[], []]


async def test_the_studies_of_a_patient_stay_together_and_a_second_time_changes_nothing(
    runtime: Runtime,
) -> None:
    study_ids = [(await stored(runtime, *images(generate_uid(), count)))[0] for count in (2, 1)]
    async with running_jobs(runtime):
        first, second = [await anonymized(runtime, study_id) for study_id in study_ids]
        again = await anonymized(runtime, study_ids[0])
        other = await anonymized(runtime, study_ids[0], keep=["StudyDate"])
        named = await anonymized(runtime, study_ids[1], patient_id="TRIAL-7", patient_name="T^7")
    one, two = await study_of(runtime, first), await study_of(runtime, second)
    assert one.patient_id == two.patient_id
    assert one.study_instance_uid != two.study_instance_uid
    assert (again.state, again.completed) == (JobState.SUCCEEDED, 2)
    assert again.result_study_ids == first.result_study_ids
    kept = await study_of(runtime, other)
    assert (kept.id != one.id, kept.study_date, one.study_date) == (True, "2025-06-11", None)
    assert kept.patient_id == one.patient_id
    trial = await study_of(runtime, named)
    assert (trial.patient_id, trial.patient_name) == ("TRIAL-7", "T^7")


async def test_images_that_may_show_a_name_are_refused_until_somebody_has_looked(
    runtime: Runtime,
) -> None:
    study_uid = generate_uid()
    plain, marked = images(study_uid, 2)
    marked.BurnedInAnnotation = "YES"
    (study_id,) = await stored(runtime, plain, marked)
    async with running_jobs(runtime):
        refused = await anonymized(runtime, study_id)
        assert refused.error is not None
        assert (refused.state, refused.error.code) == (JobState.FAILED, "BURNED_IN_ANNOTATION")
        (failure,) = refused.failures
        assert failure.sop_instance_uid == marked.SOPInstanceUID
        assert await runtime.database["studies"].count_documents({}) == 1
        done = await anonymized(runtime, study_id, confirm_burned_in=True)
    assert (done.state, done.completed) == (JobState.SUCCEEDED, 2)
    flags = [
        dcmread(io.BytesIO(content)).get("BurnedInAnnotation")
        for content in await files_of(runtime, done.result_study_ids[0])
    ]
    assert sorted(map(str, flags)) == ["None", "YES"]


async def test_documents_are_left_out_and_named(runtime: Runtime) -> None:
    study_uid = generate_uid()
    (image,) = images(study_uid, 1)
    document = dcmread(str(get_testdata_file("test-SR.dcm", download=False)))
    document.SOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    document.file_meta.MediaStorageSOPClassUID = document.SOPClassUID
    document.StudyInstanceUID, document.PatientID = study_uid, image.PatientID
    (study_id,) = await stored(runtime, image, document)
    async with running_jobs(runtime):
        done = await anonymized(runtime, study_id)
    assert (done.state, done.completed, done.failed) == (JobState.PARTIAL, 1, 1)
    assert [one.error.code for one in done.failures] == ["NOT_ANONYMIZABLE"]
    assert (await study_of(runtime, done)).number_of_instances == 1


async def test_a_cancelled_job_leaves_nothing_and_a_retry_makes_everything(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study_id,) = await stored(runtime, *images(generate_uid(), 4))
    waits, store = asyncio.Event(), StudyFiles.store
    count = 0

    async def store_two(self: StudyFiles, file: BinaryIO, job: RunningJob) -> StoreResult:
        nonlocal count
        count += 1
        if count > 2:
            await waits.wait()
        return await store(self, file, job)

    monkeypatch.setattr(StudyFiles, "store", store_two)

    async def two_are_stored() -> bool:
        return await runtime.database["instances"].count_documents({}) == 6

    async with running_jobs(runtime):
        job = await start(runtime, study_id)
        await eventually(two_are_stored)
        await runtime.jobs.cancel(job.id, ANNA)
        cancelled = await ended(runtime, job.id)
        assert cancelled.state is JobState.CANCELLED
        assert await ids_in(runtime, "instances") == 4
        assert await ids_in(runtime, "studies") == 1
        assert await ids_in(runtime, "anonymizations") == 0
        waits.set()
        await runtime.jobs.retry(job.id, ANNA)
        done = await ended(runtime, job.id)
    assert (done.state, done.completed) == (JobState.SUCCEEDED, 4)
    assert await ids_in(runtime, "instances") == 8
    marked = await runtime.database["studyCopies"].find().to_list()
    assert marked == [{"_id": done.result_study_ids[0], "origin": "ANONYMIZED"}]


async def ids_in(runtime: Runtime, collection: str) -> int:
    return int(await runtime.database[collection].count_documents({}))


async def test_what_is_stored_already_is_not_made_again(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study_id,) = await stored(runtime, *images(generate_uid(), 3))
    made: list[str] = []
    store = StudyFiles.store

    async def counted(self: StudyFiles, file: BinaryIO, job: RunningJob) -> StoreResult:
        made.append(job.id)
        return await store(self, file, job)

    monkeypatch.setattr(StudyFiles, "store", counted)
    async with running_jobs(runtime):
        first = await anonymized(runtime, study_id)
        assert runtime.deletion is not None
        victim = await runtime.database["instances"].find_one(
            {"orthancStudyId": first.result_study_ids[0]}
        )
        assert victim is not None
        assert runtime.orthanc is not None
        await runtime.orthanc.delete("instances", victim["_id"])
        await runtime.database["instances"].delete_one({"_id": victim["_id"]})
        made.clear()
        again = await anonymized(runtime, study_id)
    assert (again.state, again.completed, len(made)) == (JobState.SUCCEEDED, 3, 1)
    assert len(await files_of(runtime, first.result_study_ids[0])) == 3


async def test_what_a_job_has_made_stays_when_its_retry_fails(runtime: Runtime) -> None:
    study_uid = generate_uid()
    (image,) = images(study_uid, 1)
    document = dcmread(str(get_testdata_file("test-SR.dcm", download=False)))
    document.SOPClassUID = "1.2.840.10008.5.1.4.1.1.104.1"
    document.file_meta.MediaStorageSOPClassUID = document.SOPClassUID
    document.StudyInstanceUID, document.PatientID = study_uid, image.PatientID
    (study_id,) = await stored(runtime, image, document)
    async with running_jobs(runtime):
        partial = await anonymized(runtime, study_id)
        assert partial.state is JobState.PARTIAL
        assert runtime.deletion is not None
        await runtime.deletion.delete(await runtime.deletion.find(Level.STUDY, study_id))
        await runtime.jobs.retry(partial.id, ANNA)
        failed = await ended(runtime, partial.id)
    assert failed.error is not None
    assert (failed.state, failed.error.code) == (JobState.FAILED, "NOT_FOUND")
    assert len(await files_of(runtime, partial.result_study_ids[0])) == 1
    assert await ids_in(runtime, "anonymizations") == 1


async def test_a_cancelled_job_leaves_the_copy_that_another_one_made_meanwhile(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study_id,) = await stored(runtime, *images(generate_uid(), 3))
    store, count = StudyFiles.store, 0

    async def away_at_first(self: StudyFiles, file: BinaryIO, job: RunningJob) -> StoreResult:
        nonlocal count
        count += 1
        if count == 3:
            raise OrthancUnavailable
        return await store(self, file, job)

    monkeypatch.setattr(StudyFiles, "store", away_at_first)
    async with running_jobs(runtime):
        first = await start(runtime, study_id)

        async def waits_for_its_second_attempt() -> bool:
            found = await runtime.database["jobs"].find_one({"_id": first.id})
            return found is not None and (found["state"], found["attempts"]) == ("QUEUED", 1)

        await eventually(waits_for_its_second_attempt)
        done = await anonymized(runtime, study_id)
        assert (done.state, done.completed) == (JobState.SUCCEEDED, 3)
        await runtime.jobs.cancel(first.id, ANNA)
        assert (await ended(runtime, first.id)).state is JobState.CANCELLED
    assert len(await files_of(runtime, done.result_study_ids[0])) == 3


async def test_the_copy_of_a_file_that_was_replaced_does_not_count(runtime: Runtime) -> None:
    kept, replaced = images(generate_uid(), 2)
    (study_id,) = await stored(runtime, kept, replaced)
    async with running_jobs(runtime):
        assert (await anonymized(runtime, study_id)).state is JobState.SUCCEEDED
        found = await runtime.database["instances"].find_one(
            {"sopInstanceUID": replaced.SOPInstanceUID}
        )
        assert found is not None
        assert runtime.orthanc is not None
        await runtime.orthanc.delete("instances", found["_id"])
        replaced.PixelData = bytes(reversed(replaced.PixelData))
        await stored(runtime, replaced)
        again = await anonymized(runtime, study_id)
    assert (again.state, again.completed, again.failed) == (JobState.PARTIAL, 1, 1)
    (failure,) = again.failures
    assert (failure.sop_instance_uid, failure.error.code) == (
        replaced.SOPInstanceUID,
        "CONTENT_CONFLICT",
    )


async def test_who_is_limited_to_labels_sees_what_they_made(runtime: Runtime) -> None:
    (study_id,) = await stored(runtime, *images(generate_uid(), 1))
    ward = Principal("ann", Role.UPLOADER, scope=Scope(labels=frozenset({"ward"})))
    await runtime.labels.add(study_id, ["ward"], ALL)
    async with running_jobs(runtime):
        done = await anonymized(runtime, study_id, ward)
    assert (await study_of(runtime, done)).labels == ["ward"]
    # Whether there is a patient outside of their scope, they don't learn.
    for patient_id in ("QZ77190456", "NOBODY"):
        with pytest.raises(InvalidInput, match="leave patientID out"):
            await start(runtime, study_id, ward, patient_id=patient_id)


async def test_a_patient_of_the_archive_is_no_pseudonym(runtime: Runtime) -> None:
    (study_id,) = await stored(runtime, *images(generate_uid(), 1))
    with pytest.raises(InvalidInput) as refused:
        await start(runtime, study_id, patient_id="QZ77190456")
    assert refused.value.argument == "input.patientID"
    assert await ids_in(runtime, "jobs") == 0


def _names(errors: Sequence[dict[str, Any]]) -> list[str]:
    return [error["extensions"]["code"] for error in errors]


async def test_only_uploaders_start_and_only_what_is_there(
    server: RunningServer, tokens: dict[str, str]
) -> None:
    nowhere = encode_node_id("Study", "-".join(["0" * 8] * 5))
    for role, code in (("viewer", "FORBIDDEN"), ("uploader", "NOT_FOUND")):
        answer = await ask(server, tokens[role], START, id=nowhere, input={})
        assert _names(answer["errors"]) == [code]
