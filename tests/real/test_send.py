"""Studies are sent: each instance has its outcome, and nothing goes twice."""

import asyncio
import io
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.sop_class import (  # type: ignore[attr-defined]  # made at run time
    CTImageStorage,
    MRImageStorage,
    StorageCommitmentPushModel,
    StorageCommitmentPushModelInstance,
)

from graph.relay import encode_node_id
from graph.schema import build_schema
from models import JobDocument, JobState
from models.job import CommitmentState
from services.auth.roles import LOCAL_ADMIN
from services.embedded.ports import find_free_port
from services.ingest.service import SentFile
from services.jobs.handler import CANCEL_SECONDS
from services.jobs.runner import JobRunner
from services.modalities import send, storage
from services.modalities.declaration import check_declaration
from services.modalities.send import SendJobs, new_send
from services.runtime import Runtime
from services.tasks import finish_in_thread
from tests.dicom_peers import stop
from tests.real.jobs_stage import ended, make_runner, running
from tests.real.modality_stage import running as running_program
from tests.real.modality_stage import until_open
from tests.real.query_stage import QueryStage
from tests.real.sync_stage import eventually, instance_bytes

pytestmark = pytest.mark.usefixtures("runner")

COMPRESSED = Path(str(get_testdata_file("MR_small_RLE.dcm")))

SEND = """mutation ($ids: [ID!]!, $commit: Boolean!) {
  sendStudies(modality: "ws", ids: $ids, commit: $commit) { id state kind modality { name } }
}"""


@pytest.fixture
async def runner(runtime: Runtime) -> AsyncIterator[JobRunner]:
    handler = SendJobs(runtime.modalities, runtime.whole_orthanc, runtime.database)
    runner = make_runner(runtime.database, handler, attempts_max=2)
    runtime.jobs._on_queued = runner.wake
    async with running(runner):
        yield runner


@dataclass(slots=True)
class Workstation:
    """A peer that takes what it is sent, as it is told to.

    Attributes:
        statuses: What it answers, by SOPInstanceUID; 0 to others.
        abort_after: It aborts the association after so many; None: never.
        received: SOPInstanceUID and transfer syntax of what it has taken, in their order.
        reports_to: Port to which it reports storage commitments; None: it does not.
        not_kept: SOPInstanceUIDs that it does not commit itself to.
        unnamed: SOPInstanceUIDs that its report leaves out.
        keeps_first: It refuses what it has already, whatever comes under its UID (0111).
    """

    statuses: dict[str, int] = field(default_factory=dict)
    abort_after: int | None = None
    hold: threading.Event | None = None
    received: list[tuple[str, str]] = field(default_factory=list)
    reports_to: int | None = None
    not_kept: set[str] = field(default_factory=set)
    unnamed: set[str] = field(default_factory=set)
    keeps_first: bool = False

    @property
    def uids(self) -> list[str]:
        return [uid for uid, _ in self.received]

    @contextmanager
    def running(
        self, *syntaxes: str, commits: bool = False, port: int | None = None
    ) -> Iterator[int]:
        entity = AE(ae_title="WS")
        for uid in (CTImageStorage, MRImageStorage):
            entity.add_supported_context(uid, list(syntaxes) or [ExplicitVRLittleEndian])
        if commits:
            entity.add_supported_context(StorageCommitmentPushModel)
        port = port or find_free_port()
        handlers: list[Any] = [(evt.EVT_C_STORE, self._take), (evt.EVT_N_ACTION, self._commit)]
        server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
        assert server is not None
        try:
            yield port
        finally:
            stop(server)

    def _take(self, event: evt.Event) -> int:
        request: Any = event.request
        uid = str(request.AffectedSOPInstanceUID)
        if self.abort_after is not None and len(self.received) >= self.abort_after:
            self.abort_after = None
            event.assoc.abort()
            return 0
        if self.hold is not None:
            self.hold.wait(10)
        status = 0x0111 if self.keeps_first and uid in self.uids else self.statuses.get(uid, 0)
        if status in (0, 0xB000):
            self.received.append((uid, event.context.transfer_syntax))
        return status

    def _commit(self, event: evt.Event) -> tuple[int, None]:
        if self.reports_to is not None:
            asked = event.action_information
            threading.Thread(target=self._report, args=(asked,), daemon=True).start()
        return 0, None

    def _report(self, asked: Dataset) -> None:
        kept, failed = [], []
        for item in asked.ReferencedSOPSequence:
            if item.ReferencedSOPInstanceUID in self.not_kept:
                item.FailureReason = 0x0112
                failed.append(item)
            elif item.ReferencedSOPInstanceUID not in self.unnamed:
                kept.append(item)
        report = Dataset()
        report.TransactionUID = asked.TransactionUID
        if kept:
            report.ReferencedSOPSequence = kept
        if failed:
            report.FailedSOPSequence = failed
        entity = AE(ae_title="WS")
        entity.add_requested_context(StorageCommitmentPushModel)
        association = entity.associate("127.0.0.1", self.reports_to or 0, ae_title="ORTHANC")
        if association.is_established:
            association.send_n_event_report(
                report, 2 if failed else 1,
                StorageCommitmentPushModel, StorageCommitmentPushModelInstance,
            )  # fmt: skip
            association.release()


async def declare(
    runtime: Runtime, port: int, *, name: str = "ws", ae_title: str = "WS", timeout_seconds: int = 5
) -> None:
    declaration = check_declaration(
        name=name,
        ae_title=ae_title,
        host="127.0.0.1",
        port=port,
        allows=None,
        retrieve_method="AUTO",  # type: ignore[arg-type]  # an enumeration of texts
        timeout_seconds=timeout_seconds,
        description=None,
    )
    await runtime.modalities.declare(declaration)


async def stored(runtime: Runtime, *contents: bytes) -> list[str]:
    """Store files; answers Orthanc's ids of their studies."""
    results = await runtime.ingest.store(
        [SentFile("one", lambda content=content: io.BytesIO(content)) for content in contents]  # type: ignore[misc]  # mypy can't infer lambdas with defaults
    )
    assert [result.error for result in results] == [None] * len(contents)
    return sorted({result.study_id for result in results if result.study_id})


def uid_of(study: int, series: int, number: int) -> str:
    return f"1.2.826.0.1.3680043.8.498.{study}.{series}.{number}"


async def sent(runtime: Runtime, study_ids: list[str], *, commit: bool = False) -> JobDocument:
    job = await runtime.jobs.start(new_send("ws", study_ids, commit=commit), LOCAL_ADMIN)
    return await ended(runtime, job.id)


async def test_a_study_is_sent_to_storescp(runtime: Runtime, tmp_path: Path) -> None:
    stage = QueryStage(runtime, build_schema(runtime.settings))
    [study] = await stored(runtime, *(instance_bytes(1, 1, number) for number in range(1, 5)))
    port = find_free_port()
    command = ("/usr/bin/storescp", "-aet", "WS", "-od", str(tmp_path), str(port))
    async with running_program(*command):
        await until_open(port)
        await declare(runtime, port)
        ids = [encode_node_id("Study", study)]
        data = await stage.data(SEND, ids=ids, commit=False)
        assert data["sendStudies"]["kind"] == "SEND"
        assert data["sendStudies"]["modality"] == {"name": "ws"}
        jobs = await runtime.jobs.active(principal=LOCAL_ADMIN)

        async def is_there() -> bool:
            return len(list(tmp_path.iterdir())) == 4  # noqa: ASYNC240  # four files

        await eventually(is_there)
        for active in jobs:
            job = await ended(runtime, active.id)
            assert (job.state, job.total, job.completed) == (JobState.SUCCEEDED, 4, 4)
    record = await runtime.database["audit"].find_one({"detail": "sendStudies ws"})
    assert record is not None
    assert (record["action"], record["outcome"]) == ("send", "ok")


async def test_each_instance_has_its_outcome_and_a_retry_sends_what_failed(
    runtime: Runtime,
) -> None:
    studies = await stored(runtime, *(instance_bytes(2, 1, number) for number in range(1, 7)))
    refused, duplicate, warned = uid_of(2, 1, 2), uid_of(2, 1, 3), uid_of(2, 1, 4)
    workstation = Workstation(statuses={refused: 0xC123, duplicate: 0x0111, warned: 0xB000})
    with workstation.running() as port:
        await declare(runtime, port)
        job = await sent(runtime, studies)
        assert (job.state, job.total, job.completed, job.failed) == (JobState.PARTIAL, 6, 4, 2)
        assert job.warnings == 1
        told = {
            one.sop_instance_uid: (one.error.code, one.error.dimse_status) for one in job.failures
        }
        assert told == {
            refused: ("MODALITY_REFUSED", "C123"), duplicate: ("MODALITY_REFUSED", "0111"),
        }  # fmt: skip
        workstation.statuses, workstation.received = {}, []
        await runtime.jobs.retry(job.id, LOCAL_ADMIN)
        job = await ended(runtime, job.id)
    assert (job.state, job.completed, job.failed) == (JobState.SUCCEEDED, 6, 0)
    assert sorted(workstation.uids) == [refused, duplicate]


async def test_nothing_is_sent_twice_to_a_peer_that_aborts(runtime: Runtime) -> None:
    studies = await stored(runtime, *(instance_bytes(3, 1, number) for number in range(1, 9)))
    workstation = Workstation(abort_after=3)
    with workstation.running() as port:
        await declare(runtime, port)
        job = await sent(runtime, studies)
    assert (job.state, job.completed, job.attempts) == (JobState.SUCCEEDED, 8, 2)
    assert sorted(workstation.uids) == sorted(uid_of(3, 1, number) for number in range(1, 9))


async def test_a_full_peer_is_no_fault_of_the_instances(runtime: Runtime) -> None:
    studies = await stored(runtime, instance_bytes(4, 1, 1), instance_bytes(4, 1, 2))
    workstation = Workstation(statuses={uid_of(4, 1, number): 0xA700 for number in (1, 2)})
    with workstation.running() as port:
        await declare(runtime, port)
        job = await sent(runtime, studies)
    assert (job.state, job.attempts, job.failures) == (JobState.FAILED, 2, [])
    assert job.error is not None
    assert (job.error.code, job.error.dimse_status) == ("MODALITY_REFUSED", "A700")


@pytest.mark.parametrize("is_large", [False, True])
async def test_files_are_written_in_the_encoding_that_is_taken(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    """Large ones not in the memory of this server."""
    if is_large:
        monkeypatch.setattr(storage, "_REWRITTEN_BYTES_MAX", 0)
    compressed = await finish_in_thread(COMPRESSED.read_bytes)
    studies = await stored(runtime, instance_bytes(5, 1, 1), compressed)
    workstation = Workstation()
    with workstation.running(ImplicitVRLittleEndian) as port:
        await declare(runtime, port)
        job = await sent(runtime, studies)
    assert (job.state, job.completed, job.failed) == (JobState.SUCCEEDED, 2, 0), job.failures
    assert {syntax for _, syntax in workstation.received} == {ImplicitVRLittleEndian}


async def test_a_cancelled_send_stops(runtime: Runtime) -> None:
    studies = await stored(runtime, *(instance_bytes(6, 1, number) for number in range(1, 4)))
    hold = threading.Event()
    workstation = Workstation(hold=hold)
    with workstation.running() as port:
        await declare(runtime, port)
        job = await runtime.jobs.start(new_send("ws", studies, commit=False), LOCAL_ADMIN)
        again = await runtime.jobs.start(new_send("ws", studies, commit=False), LOCAL_ADMIN)
        assert again.id == job.id
        await asyncio.sleep(0.3)
        await runtime.jobs.cancel(job.id, LOCAL_ADMIN)
        # Less than a job that can't be cancelled takes to be given up.
        async with asyncio.timeout(CANCEL_SECONDS - 1):
            job = await ended(runtime, job.id)
        hold.set()
    assert job.state is JobState.CANCELLED


async def test_a_peer_commits_itself_to_what_it_was_sent(runtime: Runtime) -> None:
    studies = await stored(runtime, instance_bytes(7, 1, 1), instance_bytes(7, 1, 2))
    listener = await runtime.modalities.listener()
    workstation = Workstation(reports_to=listener.port)
    with workstation.running(commits=True) as port:
        await declare(runtime, port)
        job = await sent(runtime, studies, commit=True)
    assert (job.state, job.commitment) == (JobState.SUCCEEDED, CommitmentState.COMMITTED)
    assert job.completed == 2


@pytest.mark.parametrize(("field", "status"), [("not_kept", "0112"), ("unnamed", None)])
async def test_what_a_peer_does_not_commit_itself_to_is_told_and_sent_again(
    runtime: Runtime, field: str, status: str | None
) -> None:
    studies = await stored(runtime, instance_bytes(44, 1, 1), instance_bytes(44, 1, 2))
    listener = await runtime.modalities.listener()
    kept, lost = uid_of(44, 1, 1), uid_of(44, 1, 2)
    workstation = Workstation(reports_to=listener.port)
    getattr(workstation, field).add(lost)
    with workstation.running(commits=True) as port:
        await declare(runtime, port)
        job = await sent(runtime, studies, commit=True)
        assert (job.state, job.commitment) == (JobState.PARTIAL, CommitmentState.FAILED)
        assert (job.total, job.completed, job.failed) == (2, 1, 1)
        [failure] = job.failures
        assert (failure.sop_instance_uid, failure.error.dimse_status) == (lost, status)
        getattr(workstation, field).clear()
        await runtime.jobs.retry(job.id, LOCAL_ADMIN)
        job = await ended(runtime, job.id)
    assert (job.state, job.commitment) == (JobState.SUCCEEDED, CommitmentState.COMMITTED)
    assert job.completed == 2
    assert sorted(workstation.uids) == [kept, lost, lost]


async def test_a_commitment_that_is_not_answered_is_told(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send, "_COMMITMENT_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(send, "_COMMITMENT_SECONDS", 0.1)
    monkeypatch.setattr(send, "_COMMITMENT_POLLS", 2)
    studies = await stored(runtime, instance_bytes(8, 1, 1))
    with Workstation().running(commits=True) as port:
        await declare(runtime, port)
        job = await sent(runtime, studies, commit=True)
    assert (job.state, job.commitment) == (JobState.SUCCEEDED, CommitmentState.UNANSWERED)
    with Workstation().running() as port:
        await declare(runtime, port)
        job = await sent(runtime, studies, commit=True)
    assert (job.state, job.commitment) == (JobState.PARTIAL, CommitmentState.FAILED)
    assert job.failures[0].error.code == "MODALITY_UNSUPPORTED"


async def test_a_study_that_was_deleted_meanwhile_is_not_sent(runtime: Runtime) -> None:
    (study_id,) = await stored(runtime, instance_bytes(41, 1, 1))
    gone = "-".join(["0" * 8] * 5)
    workstation = Workstation()
    with workstation.running() as port:
        await declare(runtime, port)
        job = await sent(runtime, [gone])
        assert (job.state, [one.error.code for one in job.failures]) == ("FAILED", ["NOT_FOUND"])
        job = await sent(runtime, [study_id, gone])
    assert (job.state, job.completed, job.failed) == ("PARTIAL", 1, 1)


async def test_what_failed_stays_failed_while_a_commitment_is_waited_for(
    runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a retry sends it, however the commitment of the rest has ended."""
    monkeypatch.setattr(send, "_COMMITMENT_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(send, "_COMMITMENT_SECONDS", 0.1)
    monkeypatch.setattr(send, "_COMMITMENT_POLLS", 2)
    studies = await stored(runtime, instance_bytes(42, 1, 1), instance_bytes(42, 1, 2))
    refused = uid_of(42, 1, 2)
    workstation = Workstation(statuses={refused: 0xC000})
    with workstation.running(commits=True) as port:
        await declare(runtime, port)
        job = await sent(runtime, studies, commit=True)
        assert (job.state, job.completed, job.failed) == (JobState.PARTIAL, 1, 1)
        assert [one.sop_instance_uid for one in job.failures] == [refused]
        workstation.statuses.clear()
        await runtime.jobs.retry(job.id, LOCAL_ADMIN)
        job = await ended(runtime, job.id)
    assert (job.state, job.completed, job.failed) == (JobState.SUCCEEDED, 2, 0)
    assert sorted(workstation.uids) == [uid_of(42, 1, 1), refused]


async def test_a_file_that_is_gone_does_not_end_the_send_of_the_others(runtime: Runtime) -> None:
    studies = await stored(runtime, *(instance_bytes(43, 1, number) for number in (1, 2, 3)))
    gone = await runtime.database["instances"].find_one({"sopInstanceUID": uid_of(43, 1, 1)})
    assert gone is not None
    assert runtime.orthanc is not None
    await runtime.orthanc.delete("instances", gone["_id"])
    workstation = Workstation()
    with workstation.running() as port:
        await declare(runtime, port)
        job = await sent(runtime, studies)
    assert (job.state, job.completed, job.failed) == (JobState.PARTIAL, 2, 1)
    assert job.failures[0].error.code == "NOT_FOUND"
