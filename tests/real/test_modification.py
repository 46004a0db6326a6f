"""Modifying studies on a real Orthanc: copies, changes in place, changes of the patient."""

import asyncio
import copy
import io
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any, BinaryIO

import pytest
from pydicom import dcmread
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from models import JobDocument, JobState
from services.anonymization.modification import ModificationOptions
from services.auth.scope import ALL
from services.deletion import Deletion, Level
from services.errors import InvalidInput, OrthancFull, OrthancUnavailable
from services.ingest.results import StoreResult
from services.jobs.handler import RunningJob
from services.runtime import Runtime
from services.study_files import StudyFiles
from services.sync.lease import Lease, pause_of_replacements
from tests.real.jobs_stage import ADMIN, ended, running_jobs
from tests.real.sync_stage import eventually
from tests.real.test_anonymization import files_of, ids_in, images, stored

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")


async def start(runtime: Runtime, study_id: str, **options: Any) -> JobDocument:
    study = await runtime.database["studies"].find_one({"_id": study_id})
    assert study is not None
    return await runtime.modifications.start(
        study, ModificationOptions(**options), ADMIN, correlation_id="c0ffee"
    )


async def modify(runtime: Runtime, study_id: str, **options: Any) -> JobDocument:
    job = await start(runtime, study_id, **options)
    return await ended(runtime, job.id)


async def headers_of(runtime: Runtime, study_id: str) -> list[FileDataset]:
    return [dcmread(io.BytesIO(content)) for content in await files_of(runtime, study_id)]


def uids_of(headers: Sequence[FileDataset]) -> set[str]:
    return {str(header.SOPInstanceUID) for header in headers}


async def test_a_copy_has_other_values_and_uids_and_the_source_stays(runtime: Runtime) -> None:
    sources = images(generate_uid(), 3)
    (study_id,) = await stored(runtime, *sources)
    await runtime.labels.add(study_id, ["ward"], ALL)
    async with running_jobs(runtime):
        done = await modify(runtime, study_id, replace={"StudyDescription": "Thorax"})
        again = await modify(runtime, study_id, replace={"StudyDescription": "Thorax"})
    assert (done.state, done.completed, done.failed) == (JobState.SUCCEEDED, 3, 0)
    assert again.result_study_ids == done.result_study_ids != [study_id]
    copies = await headers_of(runtime, done.result_study_ids[0])
    assert [copy.StudyDescription for copy in copies] == ["Thorax"] * 3
    assert uids_of(copies).isdisjoint(uids_of(sources))
    assert uids_of(await headers_of(runtime, study_id)) == uids_of(sources)
    found = await runtime.database["studies"].find_one({"_id": done.result_study_ids[0]})
    assert found is not None
    assert (found["labels"], found["studyDescription"]) == (["ward"], "Thorax")
    marked = await runtime.database["studyCopies"].find().to_list()
    assert marked == [{"_id": done.result_study_ids[0], "origin": "MODIFIED"}]


async def test_a_study_changes_in_place_and_keeps_its_uids(runtime: Runtime) -> None:
    sources = images(generate_uid(), 3)
    (study_id,) = await stored(runtime, *sources)
    await runtime.labels.add(study_id, ["ward"], ALL)
    options = {"replace": {"StudyDescription": "Thorax"}, "delete_source": True}
    async with running_jobs(runtime):
        done = await modify(runtime, study_id, **options)
        again = await modify(runtime, study_id, **options)
    assert (done.state, done.completed, done.result_study_ids) == (
        JobState.SUCCEEDED,
        3,
        [study_id],
    )
    assert again.state is JobState.SUCCEEDED
    headers = await headers_of(runtime, study_id)
    assert uids_of(headers) == uids_of(sources)
    for header in headers:
        assert header.StudyDescription == "Thorax"
        # One more item, and not another one for the second time.
        assert len(header.OriginalAttributesSequence) == 2
    found = await runtime.database["studies"].find_one({"_id": study_id})
    assert found is not None
    assert (found["labels"], found["studyDescription"]) == (["ward"], "Thorax")
    assert await ids_in(runtime, "replacements.files") == 0


async def test_a_study_goes_to_another_patient(runtime: Runtime) -> None:
    sources = images(generate_uid(), 2)
    (study_id,) = await stored(runtime, *sources)
    copies = runtime.database["studyCopies"]
    await copies.insert_one({"_id": study_id, "origin": "ANONYMIZED"})
    async with running_jobs(runtime):
        done = await modify(
            runtime,
            study_id,
            replace={"PatientID": "P9", "PatientName": "Doe^Jane"},
            delete_source=True,
        )
    assert (done.state, done.completed) == (JobState.SUCCEEDED, 2)
    (result_id,) = done.result_study_ids
    headers = await headers_of(runtime, result_id)
    assert uids_of(headers) == uids_of(sources)
    assert {(h.PatientID, str(h.PatientName)) for h in headers} == {("P9", "Doe^Jane")}
    studies = await runtime.database["studies"].find().to_list()
    assert [study["_id"] for study in studies] == [result_id]
    patients = await runtime.database["patients"].find().to_list()
    assert [patient["patientID"] for patient in patients] == ["P9"]
    # A correction stays what it was.
    assert await copies.find_one({"_id": result_id}) == {"_id": result_id, "origin": "ANONYMIZED"}


async def test_a_patient_id_of_somebody_else_needs_their_name(runtime: Runtime) -> None:
    other = images(generate_uid(), 1)[0]
    other.PatientID, other.PatientName = "P7", "Somebody^Else"
    study_id, _ = await stored(runtime, *images(generate_uid(), 1), other)
    with pytest.raises(InvalidInput) as refused:
        await start(runtime, study_id, replace={"PatientID": "P7"})
    assert refused.value.argument == "replace"
    assert "Somebody" not in refused.value.message
    await start(runtime, study_id, replace={"PatientID": "P7", "PatientName": "Somebody^Else"})


async def test_no_file_is_lost_when_orthanc_refuses_its_new_form(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = images(generate_uid(), 2)
    (study_id,) = await stored(runtime, *sources)
    store, faults = StudyFiles.store, 0

    async def refusing(*_: object) -> StoreResult:
        nonlocal faults
        faults += 1
        raise OrthancFull if faults % 2 else OrthancUnavailable

    monkeypatch.setattr(StudyFiles, "store", refusing)
    monkeypatch.setattr(runtime.job_runner, "_limits", _hasty(runtime))
    async with running_jobs(runtime):
        job = await start(runtime, study_id, replace={"StudyID": "7"}, delete_source=True)
        failed = await ended(runtime, job.id)
        assert failed.error is not None
        assert (failed.state, failed.error.code) == (JobState.FAILED, "REPLACEMENT_UNFINISHED")
        kept = await ids_in(runtime, "replacements.files")
        assert 1 <= kept <= 2
        assert len(await files_of(runtime, study_id) if kept == 1 else []) == 2 - kept
        monkeypatch.setattr(StudyFiles, "store", store)
        await runtime.jobs.retry(job.id, ADMIN)
        done = await ended(runtime, job.id)
    assert done.state is JobState.SUCCEEDED
    headers = await headers_of(runtime, study_id)
    assert uids_of(headers) == uids_of(sources)
    assert {header.StudyID for header in headers} == {"7"}
    assert await ids_in(runtime, "replacements.files") == 0


def _hasty(runtime: Runtime) -> Any:  # noqa: ANN401  # the limits of the runner

    return replace(runtime.job_runner._limits, retry_seconds=0.0)


async def test_a_source_stays_when_something_of_it_could_not_be_copied(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study_id,) = await stored(runtime, *images(generate_uid(), 2))
    store, count = StudyFiles.store, 0

    async def failing_once(self: StudyFiles, file: BinaryIO, job: RunningJob) -> StoreResult:
        nonlocal count
        count += 1
        if count == 1:
            raise OrthancFull
        return await store(self, file, job)

    monkeypatch.setattr(StudyFiles, "store", failing_once)
    options = {"replace": {"PatientID": "P9"}, "delete_source": True}
    async with running_jobs(runtime):
        partial = await modify(runtime, study_id, **options)
        assert (partial.state, partial.completed, partial.failed) == (JobState.PARTIAL, 1, 1)
        assert len(await files_of(runtime, study_id)) == 2
        await runtime.jobs.retry(partial.id, ADMIN)
        done = await ended(runtime, partial.id)
    assert (done.state, done.completed) == (JobState.SUCCEEDED, 2)
    assert await ids_in(runtime, "studies") == 1


async def test_what_came_before_a_late_deletion_of_the_source_is_not_lost(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything is copied, the deletion fails, more comes, and somebody retries days later."""
    *first, late = images(generate_uid(), 3)
    (study_id,) = await stored(runtime, *first)
    delete = Deletion.delete_instances

    async def failing(*_: object) -> None:
        raise OrthancUnavailable

    monkeypatch.setattr(Deletion, "delete_instances", failing)
    monkeypatch.setattr(runtime.job_runner, "_limits", _hasty(runtime))
    async with running_jobs(runtime):
        options = {"replace": {"PatientID": "P9"}, "delete_source": True}
        failed = await modify(runtime, study_id, **options)
        assert failed.state is JobState.FAILED
        await stored(runtime, late)
        monkeypatch.setattr(Deletion, "delete_instances", delete)
        await runtime.jobs.retry(failed.id, ADMIN)
        done = await ended(runtime, failed.id)
    assert done.state is JobState.SUCCEEDED
    (result_id,) = done.result_study_ids
    assert uids_of(await headers_of(runtime, result_id)) == uids_of([*first, late])
    assert await ids_in(runtime, "studies") == 1


async def test_a_copy_whose_source_is_gone_is_not_removed(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is all that there is of the study."""
    (study_id,) = await stored(runtime, *images(generate_uid(), 2))
    store, count = StudyFiles.store, 0

    async def failing_once(self: StudyFiles, file: BinaryIO, job: RunningJob) -> StoreResult:
        nonlocal count
        count += 1
        if count == 1:
            raise OrthancFull
        return await store(self, file, job)

    monkeypatch.setattr(StudyFiles, "store", failing_once)
    monkeypatch.setattr(runtime.job_runner, "_limits", _hasty(runtime))
    async with running_jobs(runtime):
        partial = await modify(runtime, study_id, replace={"PatientID": "P9"}, delete_source=True)
        assert partial.state is JobState.PARTIAL
        assert runtime.orthanc is not None
        await runtime.orthanc.delete("studies", study_id)
        # The index knows of the deletion later, or earlier.
        await runtime.jobs.retry(partial.id, ADMIN)
        again = await ended(runtime, partial.id)
        assert (again.state, again.failed) == (JobState.PARTIAL, 1)
        for name in ("studies", "series", "instances"):
            await runtime.database[name].delete_many({"orthancStudyId": study_id})
            await runtime.database[name].delete_many({"_id": study_id})
        await runtime.jobs.retry(partial.id, ADMIN)
        gone = await ended(runtime, partial.id)
    assert gone.error is not None
    assert (gone.state, gone.error.code) == (JobState.FAILED, "NOT_FOUND")
    (result_id,) = partial.result_study_ids
    assert len(await files_of(runtime, result_id)) == 1


async def test_a_cancelled_copy_leaves_nothing(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    (study_id,) = await stored(runtime, *images(generate_uid(), 3))
    store = StudyFiles.store
    waiting: list[str] = []

    async def slow(self: StudyFiles, file: BinaryIO, job: RunningJob) -> StoreResult:
        if waiting:
            await _forever()
        waiting.append(job.id)
        return await store(self, file, job)

    monkeypatch.setattr(StudyFiles, "store", slow)

    async def one_is_stored() -> bool:
        return await ids_in(runtime, "instances") == 4

    async with running_jobs(runtime):
        job = await start(runtime, study_id, replace={"PatientID": "P9"}, delete_source=True)
        await eventually(one_is_stored)
        await runtime.jobs.cancel(job.id, ADMIN)
        assert (await ended(runtime, job.id)).state is JobState.CANCELLED
    assert await ids_in(runtime, "studies") == 1
    assert len(await files_of(runtime, study_id)) == 3


async def _forever() -> None:

    await asyncio.Event().wait()


async def test_a_source_stays_when_its_copy_is_another_file(runtime: Runtime) -> None:
    """The target has a file of the same UIDs: which of both is right, a person must decide."""
    (source,) = images(generate_uid(), 1)
    other = copy.deepcopy(source)
    other.PatientID, other.StudyDescription = "P9", "Something else"
    study_id, target = await stored(runtime, source, other)
    async with running_jobs(runtime):
        done = await modify(runtime, study_id, replace={"PatientID": "P9"}, delete_source=True)
    assert (done.state, done.completed, done.failed) == (JobState.FAILED, 0, 1)
    assert [one.error.code for one in done.failures] == ["CONTENT_CONFLICT"]
    for kept, description in ((study_id, source.StudyDescription), (target, "Something else")):
        (header,) = await headers_of(runtime, kept)
        assert header.StudyDescription == description


async def test_a_second_job_finishes_what_the_first_one_left(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The copies of both differ by the date of the modification alone."""
    sources = images(generate_uid(), 2)
    (study_id,) = await stored(runtime, *sources)
    store, count = StudyFiles.store, 0

    async def failing_once(self: StudyFiles, file: BinaryIO, job: RunningJob) -> StoreResult:
        nonlocal count
        count += 1
        if count == 1:
            raise OrthancFull
        return await store(self, file, job)

    monkeypatch.setattr(StudyFiles, "store", failing_once)
    options = {"replace": {"PatientID": "P9"}, "delete_source": True}
    async with running_jobs(runtime):
        assert (await modify(runtime, study_id, **options)).state is JobState.PARTIAL
        done = await modify(runtime, study_id, **options)
    assert (done.state, done.completed) == (JobState.SUCCEEDED, 2)
    (result_id,) = done.result_study_ids
    assert uids_of(await headers_of(runtime, result_id)) == uids_of(sources)
    assert await ids_in(runtime, "studies") == 1


async def test_a_cancelled_job_removes_its_own_files_alone(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others bring files into the study that it makes, and their sources may be gone."""
    study_uid = generate_uid()
    mine = images(study_uid, 2)
    theirs, late = images(study_uid, 2)
    theirs.PatientID, late.PatientID = "P8", "P9"
    study_id, other_id = await stored(runtime, *mine, theirs)
    store = StudyFiles.store
    stuck: list[str] = []

    async def stuck_at_the_second(self: StudyFiles, file: BinaryIO, job: RunningJob) -> StoreResult:
        if job.orthanc_study_ids == (study_id,):
            if stuck:
                await _forever()
            stuck.append(job.id)
        return await store(self, file, job)

    monkeypatch.setattr(StudyFiles, "store", stuck_at_the_second)

    async def one_is_stored() -> bool:
        return await ids_in(runtime, "instances") == 4

    moved = {"replace": {"PatientID": "P9"}, "delete_source": True}
    async with running_jobs(runtime):
        job = await start(runtime, study_id, **moved)
        await eventually(one_is_stored)
        (target,) = await stored(runtime, late)
        await runtime.jobs.cancel(job.id, ADMIN)
        assert (await ended(runtime, job.id)).state is JobState.CANCELLED
        assert uids_of(await headers_of(runtime, target)) == uids_of([late])
        assert uids_of(await headers_of(runtime, study_id)) == uids_of(mine)

        # Now another job moves a study there while this one is under way.
        assert runtime.deletion is not None
        await runtime.deletion.delete(await runtime.deletion.find(Level.STUDY, target))
        stuck.clear()
        job = await start(runtime, study_id, **moved)
        await eventually(one_is_stored)
        done = await modify(runtime, other_id, **moved)
        assert (done.state, done.result_study_ids) == (JobState.SUCCEEDED, [target])
        await runtime.jobs.cancel(job.id, ADMIN)
        assert (await ended(runtime, job.id)).state is JobState.CANCELLED
    assert uids_of([theirs]) <= uids_of(await headers_of(runtime, target))
    assert uids_of(await headers_of(runtime, study_id)) == uids_of(mine)


async def test_no_file_is_taken_out_while_both_stores_are_copied(runtime: Runtime) -> None:
    (study_id,) = await stored(runtime, *images(generate_uid(), 2))

    async def both_are_kept() -> bool:
        return await ids_in(runtime, "replacements.files") == 2

    async with running_jobs(runtime):
        async with pause_of_replacements(runtime.database).kept():
            job = await start(runtime, study_id, replace={"StudyID": "7"}, delete_source=True)
            await eventually(both_are_kept)
            assert {one.StudyID for one in await headers_of(runtime, study_id)} == {"StudyNr-4412"}
        assert (await ended(runtime, job.id)).state is JobState.SUCCEEDED
    assert {header.StudyID for header in await headers_of(runtime, study_id)} == {"7"}


async def test_what_a_forgotten_job_has_left_is_stored_by_the_next(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MongoDB drops jobs after a while, but not the only copy of a file."""
    (study_id,) = await stored(runtime, *images(generate_uid(), 1))
    (other_id,) = await stored(runtime, *images(generate_uid(), 1))
    store = StudyFiles.store

    async def refusing(*_: object) -> StoreResult:
        raise OrthancFull

    monkeypatch.setattr(StudyFiles, "store", refusing)
    monkeypatch.setattr(runtime.job_runner, "_limits", _hasty(runtime))
    options = {"replace": {"StudyID": "7"}, "delete_source": True}
    async with running_jobs(runtime):
        failed = await modify(runtime, study_id, **options)
        assert failed.state is JobState.FAILED
        assert await ids_in(runtime, "replacements.files") == 1
        await runtime.database["jobs"].delete_one({"_id": failed.id})
        monkeypatch.setattr(StudyFiles, "store", store)
        assert (await modify(runtime, other_id, **options)).state is JobState.SUCCEEDED
    (header,) = await headers_of(runtime, study_id)
    assert header.StudyID == "7"
    assert await ids_in(runtime, "replacements.files") == 0


async def test_what_comes_when_the_source_goes_is_not_deleted_with_it(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    *first, late = images(generate_uid(), 3)
    (study_id,) = await stored(runtime, *first)
    delete = Deletion.delete_instances

    async def arriving(self: Deletion, instance_ids: Collection[str]) -> None:
        await stored(runtime, late)
        await delete(self, instance_ids)

    monkeypatch.setattr(Deletion, "delete_instances", arriving)
    async with running_jobs(runtime):
        done = await modify(runtime, study_id, replace={"PatientID": "P9"}, delete_source=True)
    assert (done.state, done.completed) == (JobState.SUCCEEDED, 2)
    assert uids_of(await headers_of(runtime, study_id)) == uids_of([late])
    assert uids_of(await headers_of(runtime, done.result_study_ids[0])) == uids_of(first)
    assert await ids_in(runtime, "instances") == 3


async def test_a_file_that_somebody_else_replaces_at_that_moment_is_not_lost(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    (source,) = images(generate_uid(), 1)
    (study_id,) = await stored(runtime, source)
    until_free, count = Lease.until_free, 0

    async def replaced_meanwhile(self: Lease) -> None:
        nonlocal count
        count += 1
        if count == 1:
            assert runtime.orthanc is not None
            await runtime.orthanc.delete("studies", study_id)
            source.StudyDescription = "Newer"
            await stored(runtime, source)
        await until_free(self)

    monkeypatch.setattr(Lease, "until_free", replaced_meanwhile)
    monkeypatch.setattr(runtime.job_runner, "_limits", _hasty(runtime))
    async with running_jobs(runtime):
        done = await modify(runtime, study_id, replace={"StudyID": "7"}, delete_source=True)
    assert (done.state, done.completed, count) == (JobState.SUCCEEDED, 1, 2)
    (header,) = await headers_of(runtime, study_id)
    assert (header.StudyDescription, header.StudyID) == ("Newer", "7")
    assert await ids_in(runtime, "replacements.files") == 0
