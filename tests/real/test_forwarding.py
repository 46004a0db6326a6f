"""What arrives and matches a rule is forwarded: once, and later when its destination is down."""

import asyncio
import io
from collections.abc import AsyncIterator
from typing import Any

import pydicom
import pytest
from pynetdicom import AE

from graph.schema import build_schema
from models import JobState
from services.auth.roles import LOCAL_ADMIN
from services.auth.scope import ALL
from services.jobs.runner import JobRunner
from services.modalities import send
from services.modalities.forwarding import Forwarding, principal_of
from services.modalities.send import SendJobs
from services.modalities.sources import StudySources
from services.runtime import Runtime
from services.tasks import finish_in_thread
from tests.real.jobs_stage import make_runner, running
from tests.real.query_stage import QueryStage
from tests.real.sync_stage import eventually, instance_bytes
from tests.real.sync_stage import running as following
from tests.real.test_send import Workstation, declare, stored, uid_of

pytestmark = pytest.mark.usefixtures("runner")

DECLARE = """mutation ($name: String!, $titles: [String!], $labels: [String!]) {
  declareForwardingRule(
    name: $name, modality: "ws", modalities: ["CT"], callingAETitles: $titles, labels: $labels
  ) { name modality { name } modalities jobs { id } }
}"""
RULES = """{ forwardingRules { name jobs { state error { code } nextAttemptAt } } }"""


@pytest.fixture
async def runner(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[JobRunner]:
    monkeypatch.setattr(send, "_DOWN_SECONDS", 0.5)
    handler = SendJobs(runtime.modalities, runtime.whole_orthanc, runtime.database)
    runner = make_runner(runtime.database, handler)
    runtime.jobs._on_queued = runner.wake
    async with running(runner):
        yield runner


@pytest.fixture
def stage(runtime: Runtime) -> QueryStage:
    return QueryStage(runtime, build_schema(runtime.settings))


def forwarding_of(runtime: Runtime) -> Forwarding:
    """Another process that forwards; a study is stable at once."""
    return Forwarding(
        runtime.database, runtime.modalities, runtime.jobs, runtime.orthanc, stable_seconds=0
    )


async def looked(forwarding: Forwarding) -> None:
    """Look when the millisecond of the last change is over."""
    await asyncio.sleep(0.002)
    await forwarding.look({})


async def until_received(workstation: Workstation, *uids: str) -> None:
    async def is_so() -> bool:
        return len(workstation.uids) >= len(uids)

    await eventually(is_so)
    assert sorted(workstation.uids) == sorted(uids)


async def until_queue_is_empty(runtime: Runtime, rule: str) -> None:
    async def is_so() -> bool:
        return not await runtime.jobs.active(principal=principal_of(rule))

    await eventually(is_so)


async def test_a_study_that_matches_is_forwarded_once_and_what_comes_later_alone(
    runtime: Runtime, stage: QueryStage
) -> None:
    workstation = Workstation()
    with workstation.running() as port:
        await declare(runtime, port)
        [there_before] = await stored(runtime, instance_bytes(1, 1, 1))
        declared = await stage.data(DECLARE, name="ct")
        assert declared["declareForwardingRule"] == {
            "name": "ct", "modality": {"name": "ws"}, "modalities": ["CT"], "jobs": [],
        }  # fmt: skip
        await asyncio.sleep(0.002)
        await runtime.labels.add(there_before, ["seen"], ALL)
        await stored(runtime, instance_bytes(2, 1, 1), instance_bytes(2, 1, 2))
        forwarding = forwarding_of(runtime)
        await looked(forwarding)
        first = [uid_of(2, 1, 1), uid_of(2, 1, 2)]
        await until_received(workstation, *first)
        await until_queue_is_empty(runtime, "ct")
        # Another process takes over, and looks at the same studies again.
        await looked(forwarding_of(runtime))
        assert await runtime.database["jobs"].count_documents({}) == 1
        await stored(runtime, instance_bytes(2, 1, 3))
        await looked(forwarding)
        await until_received(workstation, *first, uid_of(2, 1, 3))
        await until_queue_is_empty(runtime, "ct")
    jobs = await runtime.database["jobs"].find(sort=[("createdAt", 1)]).to_list()
    assert [(one["state"], one["total"], one["completed"]) for one in jobs] == [
        ("SUCCEEDED", 2, 2), ("SUCCEEDED", 3, 3),
    ]  # fmt: skip
    removed = await stage.data('mutation { removeForwardingRule(name: "ct") }')
    assert removed == {"removeForwardingRule": True}
    assert await stage.data(RULES) == {"forwardingRules": []}


async def test_studies_that_came_all_at_once_are_all_looked_at(
    runtime: Runtime, stage: QueryStage
) -> None:
    """An import changes more of them within the overlap of two looks than are read at once."""
    await declare(runtime, 104)
    await stage.data(DECLARE.replace('"CT"', '"MR"'), name="mr")
    await asyncio.sleep(0.002)
    studies = runtime.database["studies"]
    [study_id] = await stored(runtime, instance_bytes(14, 1, 1))
    study = await studies.find_one({"_id": study_id})
    assert study is not None
    of_import = [{**study, "_id": f"{number}", "version": f"{number}"} for number in range(250)]
    await studies.insert_many(of_import)
    await studies.update_one({"_id": "249"}, {"$set": {"modalitiesInStudy": ["MR"]}})
    await looked(forwarding_of(runtime))
    [job] = await runtime.database["jobs"].find().to_list()
    assert job["orthancStudyIds"] == ["249"]


async def test_a_destination_that_is_down_gets_everything_when_it_is_back(
    runtime: Runtime, stage: QueryStage
) -> None:
    workstation = Workstation()
    with workstation.running() as port:
        pass
    await declare(runtime, port)
    await stage.data(DECLARE, name="ct")
    await asyncio.sleep(0.002)
    await stored(runtime, *(instance_bytes(study, 1, 1) for study in (3, 4, 5)))
    await looked(forwarding_of(runtime))

    async def is_held() -> bool:
        data = await stage.data(RULES)
        jobs: list[Any] = data["forwardingRules"][0]["jobs"]
        codes = [job["error"]["code"] for job in jobs if job["error"]]
        assert {job["state"] for job in jobs} <= {"QUEUED", "RUNNING"}
        return codes == ["MODALITY_UNREACHABLE"] * 3

    await eventually(is_held)
    with workstation.running(port=port):
        await until_received(workstation, *(uid_of(study, 1, 1) for study in (3, 4, 5)))
        await until_queue_is_empty(runtime, "ct")
    states = {one["state"] for one in await runtime.database["jobs"].find().to_list()}
    assert states == {JobState.SUCCEEDED}


async def test_a_rule_may_name_who_sends_and_nothing_goes_back_to_its_sender(
    runtime: Runtime, stage: QueryStage
) -> None:
    listener = await runtime.modalities.listener()
    assert listener.port is not None
    assert runtime.sync is not None
    workstation = Workstation()
    with workstation.running() as port:
        # All of these may store in Orthanc: they are declared.
        await declare(runtime, port)
        for name in ("CT1", "CT2"):
            await declare(runtime, 104, name=name, ae_title=name)
        await stage.data(DECLARE, name="ct1", titles=["CT1", "WS"])
        async with following(runtime.sync):
            for study, number, sender in ((6, 1, "CT1"), (6, 2, "WS"), (7, 1, "CT2"), (8, 1, "WS")):
                content = instance_bytes(study, 1, number)
                await finish_in_thread(_send, sender, listener.port, content)

            async def are_indexed() -> bool:
                studies = await runtime.database["studies"].find().to_list()
                return sum(int(study["numberOfInstances"]) for study in studies) == 4

            await eventually(are_indexed)
        forwarding = forwarding_of(runtime)
        await looked(forwarding)
        await until_received(workstation, uid_of(6, 1, 1))
        await until_queue_is_empty(runtime, "ct1")
        # A correction has no sender in Orthanc, and must go where the error went.
        one = await runtime.database["instances"].find_one({"sopInstanceUID": uid_of(6, 1, 1)})
        assert one is not None
        assert runtime.orthanc is not None
        await runtime.orthanc.delete("instances", one["_id"])
        await stored(runtime, as_patient(instance_bytes(6, 1, 1), "CORRECT"))
        await looked(forwarding)
        await until_received(workstation, uid_of(6, 1, 1), uid_of(6, 1, 1))
        await until_queue_is_empty(runtime, "ct1")
    assert await runtime.database["jobs"].count_documents({}) == 2


async def test_what_was_fetched_goes_to_others_and_not_back(
    runtime: Runtime, stage: QueryStage
) -> None:
    """Orthanc knows no sender of what came by C-GET."""
    archive, workstation = Workstation(), Workstation()
    with archive.running() as archive_port, workstation.running() as port:
        await declare(runtime, archive_port, name="pacs", ae_title="PACS")
        await declare(runtime, port)
        await stage.data(DECLARE, name="on")
        await stage.data(DECLARE.replace('"ws"', '"pacs"'), name="back")
        await asyncio.sleep(0.002)
        fetched, own = uid_of(11, 1, 1), uid_of(11, 1, 2)
        sources = StudySources(runtime.database, runtime.orthanc)
        contents = [instance_bytes(11, 1, number) for number in (1, 2)]
        study_uid = str(pydicom.dcmread(io.BytesIO(contents[0])).StudyInstanceUID)
        await sources.record_retrieval("j1", "PACS", study_uid, [fetched])
        await stored(runtime, contents[0])
        await looked(forwarding_of(runtime))
        await until_queue_is_empty(runtime, "on")
        assert await runtime.database["jobs"].count_documents({}) == 1
        await stored(runtime, contents[1])
        await looked(forwarding_of(runtime))
        for rule in ("on", "back"):
            await until_queue_is_empty(runtime, rule)
    assert (archive.uids, workstation.uids) == ([own], [fetched, own])


async def test_copies_that_this_server_made_are_sent_only_by_rules_that_name_them(
    runtime: Runtime, stage: QueryStage
) -> None:
    """An anonymised study does not go where patients are, nor a patient where those go."""
    workstation, research = Workstation(), Workstation()
    with workstation.running() as port, research.running() as research_port:
        await declare(runtime, port)
        await declare(runtime, research_port, name="research", ae_title="RESEARCH")
        await stage.data(DECLARE, name="clinic")
        to_research = DECLARE.replace('"ws"', '"research", origins: [ANONYMIZED]')
        await stage.data(to_research, name="trial")
        await asyncio.sleep(0.002)
        copy, copied = instance_bytes(12, 1, 1), instance_bytes(13, 1, 1)
        [copy_id] = await stored(runtime, copy)
        await runtime.database["studyCopies"].insert_one({"_id": copy_id, "origin": "ANONYMIZED"})
        await stored(runtime, copied)
        await looked(forwarding_of(runtime))
        for rule in ("clinic", "trial"):
            await until_queue_is_empty(runtime, rule)
    assert workstation.uids == [uid_of(13, 1, 1)]
    assert research.uids == [uid_of(12, 1, 1)]


def as_patient(content: bytes, patient_id: str) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(content))
    dataset.PatientID = patient_id
    changed = io.BytesIO()
    dataset.save_as(changed)
    return changed.getvalue()


def _send(sender: str, port: int, content: bytes) -> None:
    dataset = pydicom.dcmread(io.BytesIO(content))
    entity = AE(ae_title=sender)
    entity.add_requested_context(dataset.SOPClassUID, dataset.file_meta.TransferSyntaxUID)
    association = entity.associate("127.0.0.1", port, ae_title="ORTHANC")
    assert association.is_established
    assert association.send_c_store(dataset).Status == 0
    association.release()


async def test_a_replaced_file_is_forwarded_again(runtime: Runtime, stage: QueryStage) -> None:
    """The other side must not keep the wrong side of a patient, or the wrong name."""
    workstation = Workstation()
    with workstation.running() as port:
        await declare(runtime, port)
        await stage.data(DECLARE, name="ct")
        await asyncio.sleep(0.002)
        await stored(runtime, instance_bytes(9, 1, 1), instance_bytes(9, 1, 2))
        await looked(forwarding_of(runtime))
        await until_queue_is_empty(runtime, "ct")
        dataset = pydicom.dcmread(io.BytesIO(instance_bytes(9, 1, 1)))
        dataset.ImageComments = "mended"
        mended = io.BytesIO()
        dataset.save_as(mended)
        one = await runtime.database["instances"].find_one({"sopInstanceUID": uid_of(9, 1, 1)})
        assert one is not None
        assert runtime.orthanc is not None
        await runtime.orthanc.delete("instances", one["_id"])
        await stored(runtime, mended.getvalue())
        workstation.keeps_first = True
        await looked(forwarding_of(runtime))
        await until_queue_is_empty(runtime, "ct")
        # It keeps the former content: nobody may think that it has what is here.
        job = await runtime.database["jobs"].find_one(sort=[("createdAt", -1)])
        assert job is not None
        assert (job["state"], job["failures"][0]["error"]["dimseStatus"]) == ("PARTIAL", "0111")
        workstation.keeps_first = False
        await runtime.jobs.retry(job["_id"], LOCAL_ADMIN)
        await until_queue_is_empty(runtime, "ct")
    assert workstation.uids[2:] == [uid_of(9, 1, 1)]


async def test_a_new_destination_gets_the_whole_of_a_study_that_grows(
    runtime: Runtime, stage: QueryStage
) -> None:
    first, second = Workstation(), Workstation()
    with first.running() as port, second.running() as other_port:
        await declare(runtime, port)
        await declare(runtime, other_port, name="other", ae_title="OTHER")
        await stage.data(DECLARE, name="ct")
        await asyncio.sleep(0.002)
        await stored(runtime, instance_bytes(10, 1, 1))
        await looked(forwarding_of(runtime))
        await until_queue_is_empty(runtime, "ct")
        await stage.data(DECLARE.replace('"ws"', '"other"'), name="ct")
        await stored(runtime, instance_bytes(10, 1, 2))
        await looked(forwarding_of(runtime))
        await until_queue_is_empty(runtime, "ct")
    assert first.uids == [uid_of(10, 1, 1)]
    assert sorted(second.uids) == [uid_of(10, 1, 1), uid_of(10, 1, 2)]
