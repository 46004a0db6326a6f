"""Jobs that send studies to a modality (SEND), and ask it to keep them (storage commitment).

What was sent is in the checkpoint of the job, so that an attempt after a fault, and a retry, send
only the rest. Instances that arrive while a job waits are sent with it. What a modality does not
confirm to keep counts as not sent: a retry sends it again.
"""

import asyncio
import hashlib
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, JobKind
from models.job import CommitmentState
from models.modality import DicomService, ModalityDocument
from models.stored import stored_name
from services.database import translated_database_faults
from services.errors import (
    Error,
    ModalityError,
    ModalityTimedOut,
    ModalityUnsupported,
    NotFound,
    OrthancError,
    OrthancNotFound,
    OrthancUnavailable,
    PacsDisabled,
)
from services.jobs.handler import JobPostponed, NewJob, RunningJob, may_pass
from services.modalities import faults
from services.modalities.association import Link
from services.modalities.forwarding import ForwardedInstances
from services.modalities.service import Modalities
from services.modalities.sources import StudySources
from services.modalities.storage import Delivered, Delivery, SentInstance, divided, store
from services.orthanc.answers import CommitmentReport
from services.orthanc.client import Orthanc
from services.orthanc.files import OrthancFiles
from services.study_files import NO_STUDY
from services.tasks import cancel_and_wait

_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_SOP_INSTANCE_UID = stored_name(InstanceDocument.sop_instance_uid)
_SOP_CLASS_UID = stored_name(InstanceDocument.sop_class_uid)
_TRANSFER_SYNTAX_UID = stored_name(InstanceDocument.transfer_syntax_uid)

_MARK_BYTES = 6
"""Of an instance and its revision in the checkpoint: enough to tell those of a job apart, and one
that was replaced since from what was sent."""

_SAVE_SECONDS = 1.0
"""After a crash of this process, what was sent within this time may be sent again."""

_DOWN_SECONDS = 30.0
"""Pause of a job of a rule whose destination is down."""

_COMMITMENT_SECONDS = 3600.0
"""A modality that has not answered for so long is not waited for."""

_COMMITMENT_PAUSE_SECONDS = 15.0
_COMMITMENT_POLLS = 20
_COMMITMENT_POLL_SECONDS = 0.25
"""Most modalities answer within a few seconds; the others are looked at four times a minute."""


def new_send(modality: str, study_ids: Sequence[str], *, commit: bool) -> NewJob:
    """Describe a job that sends.

    Args:
        modality: Name of the modality.
        study_ids: Orthanc's identifiers.
        commit: Whether the modality is asked to keep the instances.
    """
    unique = list(dict.fromkeys(study_ids))
    same = hashlib.sha256("|".join([*sorted(unique), str(commit)]).encode()).hexdigest()
    return NewJob(
        kind=JobKind.SEND,
        parameters={"commit": commit},
        orthanc_study_ids=unique,
        modality=modality,
        once=f"send:{modality}:{same}",
    )


class SendJobs:
    """Runs the jobs that send.

    Args:
        modalities: To whom.
        orthanc: Has the files; None while PACS integration is off.
        database: Whose index says what the studies consist of.
        now: The clock, with time zone.
    """

    kind: ClassVar[JobKind] = JobKind.SEND

    def __init__(
        self,
        modalities: Modalities,
        orthanc: Orthanc | None,
        database: AsyncDatabase[dict[str, Any]],
    ) -> None:
        self._modalities = modalities
        self._orthanc = orthanc
        self._instances = database[InstanceDocument.Settings.name]
        self._forwarded = ForwardedInstances(database)
        self._sources = StudySources(database, orthanc.client if orthanc else None)
        self._down: dict[str, tuple[float, Error]] = {}

    async def run(self, job: RunningJob) -> None:
        """Send what has not been sent of the studies of a job, then see to its commitment."""
        if self._orthanc is None:
            raise PacsDisabled
        rule = job.parameters.get("rule")
        if rule is not None:
            self._require_up(job.modality or "")
        try:
            await self._run(job, self._orthanc, rule)
        except (ModalityError, OrthancUnavailable) as exc:
            # A rule has all the time in the world, as long as it is there.
            if rule is None or not may_pass(exc) or not await self._forwarded.is_rule(rule):
                raise
            self._down[job.modality or ""] = time.monotonic() + _DOWN_SECONDS, exc
            raise JobPostponed(exc, _DOWN_SECONDS) from exc

    def _require_up(self, modality: str) -> None:
        """Hold a job of a rule whose destination was found down a moment ago.

        A firewall that drops packets costs each attempt 10 s: a long queue would take the turns of
        all other jobs.

        Raises:
            JobPostponed: Another job tries first.
        """
        until, error = self._down.get(modality, (0.0, None))
        left = until - time.monotonic()
        if error is not None and left > 0:
            raise JobPostponed(error, left)
        self._down.pop(modality, None)

    async def _run(self, job: RunningJob, orthanc: Orthanc, rule: str | None) -> None:
        modality = await self._modalities.require(job.modality or "")
        sent = _Sent.of(job)
        if rule is not None:
            for study_id in job.orthanc_study_ids:
                sent.merge(await self._forwarded.read(rule, modality.id, study_id))
        if "commitment" not in job.checkpoint:
            instances = await self._read(job.orthanc_study_ids)
            for study_id in job.orthanc_study_ids:
                if not any(one.study_id == study_id for one in instances):
                    # It was deleted while the job waited: nobody must think that it was sent.
                    job.fail(None, NotFound(NO_STUDY))
            if rule is not None:
                instances = await self._without_returns(instances, modality)
            left = [one for one in instances if one not in sent]
            job.progress(total=len(instances), completed=len(instances) - len(left))
            try:
                async with sent.saved(job):
                    await self._send(job, modality, left, sent, orthanc)
            finally:
                await self._remember(job, sent)
        if job.parameters.get("commit") and (job.completed or "commitment" in job.checkpoint):
            await self._commit(job, modality, orthanc, sent)

    async def _without_returns(
        self, instances: Sequence[SentInstance], modality: ModalityDocument
    ) -> list[SentInstance]:
        """Leave out what came from the modality itself: a rule sends nothing back."""
        came: set[str] = set()
        for study_id in {one.study_id for one in instances}:
            came |= await self._sources.from_application(modality.ae_title, study_id)
        return [one for one in instances if one.instance_id not in came]

    async def _remember(self, job: RunningJob, sent: "_Sent") -> None:
        """Keep what was sent for the next job of the same rule."""
        rule = job.parameters.get("rule")
        if rule is not None:
            for study_id in job.orthanc_study_ids:
                await self._forwarded.write(rule, job.modality or "", study_id, sent.marks)

    async def discard(self, job: RunningJob) -> None:
        """Leave what was sent: it is the modality's."""

    async def _read(self, study_ids: Sequence[str]) -> list[SentInstance]:
        with translated_database_faults():
            found = await self._instances.find(
                {_ORTHANC_STUDY_ID: {"$in": list(study_ids)}},
                {
                    "revision": 1,
                    _ORTHANC_STUDY_ID: 1,
                    _SOP_INSTANCE_UID: 1,
                    _SOP_CLASS_UID: 1,
                    _TRANSFER_SYNTAX_UID: 1,
                },
                sort=[(_ORTHANC_STUDY_ID, 1), (_ORTHANC_SERIES_ID, 1), ("_id", 1)],
            ).to_list()
        return [
            SentInstance(
                instance_id=one["_id"],
                revision=one["revision"],
                study_id=one[_ORTHANC_STUDY_ID],
                sop_instance_uid=one[_SOP_INSTANCE_UID],
                sop_class_uid=one.get(_SOP_CLASS_UID) or "",
                transfer_syntax_uid=one.get(_TRANSFER_SYNTAX_UID) or "",
            )
            for one in found
        ]

    async def _send(
        self,
        job: RunningJob,
        modality: ModalityDocument,
        left: Sequence[SentInstance],
        sent: "_Sent",
        orthanc: Orthanc,
    ) -> None:
        peer = await self._modalities.peer(modality, DicomService.STORE)
        outcomes = _Outcomes(job, sent)
        for part in divided([one for one in left if one.is_described]):
            work = partial(
                store,
                instances=part,
                fetch=partial(_fetched, orthanc.files),
                report=outcomes.report,
            )
            try:
                await self._modalities.network.run_job(Link(peer), work)
            except ModalityUnsupported as exc:
                for one in part:
                    job.fail(one.sop_instance_uid, exc)
        # Reports of the threads come before this.
        await asyncio.sleep(0)
        for_orthanc = [*outcomes.unsent, *(one for one in left if not one.is_described)]
        if for_orthanc:
            # Orthanc sends to the address that it knows: it must be the one that is declared.
            await self._modalities.mirror()
        for one in for_orthanc:
            outcomes.take(await self._transcoded(modality, one, orthanc))

    async def _transcoded(
        self, modality: ModalityDocument, instance: SentInstance, orthanc: Orthanc
    ) -> Delivered:
        """Have Orthanc send one instance, in an encoding that the modality takes.

        One at a time and never "permissive": Orthanc reports an error for a request as a whole, and
        none at all when it is told to go on.
        """
        try:
            await orthanc.client.store_at(
                modality.id, instance.instance_id, seconds=modality.timeout_seconds
            )
        except OrthancUnavailable:
            raise
        except OrthancError as exc:
            error = ModalityUnsupported(
                f"{modality.id} does not take the encoding of this object, and it could not be "
                "sent in another one.",
                detail=exc.detail,
            )
            return Delivered(instance, Delivery.FAILED, error)
        return Delivered(instance, Delivery.STORED)

    async def _commit(
        self, job: RunningJob, modality: ModalityDocument, orthanc: Orthanc, sent: "_Sent"
    ) -> None:
        """Ask the modality to keep what it has (PS3.4 J), and wait for its answer."""
        checkpoint = dict(job.checkpoint)
        asked: dict[str, Any] = checkpoint.get("commitment") or {}
        if not asked:
            job.set_commitment(CommitmentState.PENDING)
            asked = await self._request_commitment(job, modality, orthanc, sent)
            if not asked:
                return
            await job.save({**checkpoint, "commitment": asked})
        else:
            # What could not be sent is still not there, however the commitment ends.
            job.restore_failures(asked.get("failed", 0), asked.get("failures", ()))
        job.progress(total=asked["total"], completed=asked["completed"], warnings=asked["warnings"])
        for _ in range(_COMMITMENT_POLLS):
            try:
                report = await orthanc.client.commitment(asked["transaction"])
            except OrthancNotFound:
                # Orthanc was restarted: the answer can't be read any more.
                report = CommitmentReport(is_pending=False, is_lost=True)
            if not report.is_pending:
                await self._close_commitment(job, modality, report, sent)
                return
            await asyncio.sleep(_COMMITMENT_POLL_SECONDS)
        if datetime.now(UTC) >= asked["at"] + timedelta(seconds=_COMMITMENT_SECONDS):
            job.set_commitment(CommitmentState.UNANSWERED)
            await _forget_commitment(job, sent)
            return
        error = ModalityTimedOut(
            f"Everything is sent. {modality.id} has not confirmed yet that it keeps it."
        )
        raise JobPostponed(error, _COMMITMENT_PAUSE_SECONDS)

    async def _request_commitment(
        self, job: RunningJob, modality: ModalityDocument, orthanc: Orthanc, sent: "_Sent"
    ) -> dict[str, Any]:
        instances = await self._read(job.orthanc_study_ids)
        await self._modalities.mirror()
        asked = [one for one in instances if one in sent]
        ids = [one.instance_id for one in asked]
        try:
            transaction = await orthanc.client.request_commitment(
                modality.id, ids, seconds=modality.timeout_seconds
            )
        except OrthancUnavailable:
            raise
        except OrthancError as exc:
            job.set_commitment(CommitmentState.FAILED)
            error = ModalityUnsupported(
                f"{modality.id} did not take the request for storage commitment. Everything was "
                "sent; check that it offers storage commitment to this server.",
                detail=exc.detail,
            )
            job.fail(None, error)
            return {}
        return {
            "transaction": transaction,
            "asked": _join(map(_mark, asked)),
            "at": datetime.now(UTC),
            "total": job.total,
            "completed": job.completed,
            "warnings": job.warnings,
            "failed": job.failed,
            "failures": job.failures,
        }

    async def _close_commitment(
        self, job: RunningJob, modality: ModalityDocument, report: CommitmentReport, sent: "_Sent"
    ) -> None:
        """Say what the modality does not keep, or says nothing about; it counts as not sent."""
        if report.is_lost:
            job.set_commitment(CommitmentState.UNANSWERED)
        else:
            asked = _split(job.checkpoint["commitment"]["asked"])
            denied = [
                one
                for one in await self._read(job.orthanc_study_ids)
                if _mark(one) in asked and one.sop_instance_uid not in report.kept
            ]
            for one in denied:
                sent.discard(one)
                reason = report.failures.get(one.sop_instance_uid)
                job.fail(one.sop_instance_uid, _not_kept(modality.id, reason))
            job.progress(completed=job.completed - len(denied))
            is_kept = not denied and not report.failures
            job.set_commitment(CommitmentState.COMMITTED if is_kept else CommitmentState.FAILED)
            await self._remember(job, sent)
        await _forget_commitment(job, sent)


async def _forget_commitment(job: RunningJob, sent: "_Sent") -> None:
    """Let a retry send what failed or is not kept, and ask again."""
    rest = {key: value for key, value in job.checkpoint.items() if key != "commitment"}
    await job.save({**rest, "sent": sent.marks})


def _not_kept(name: str, reason: int | None) -> ModalityError:
    if reason is None:
        return ModalityError(f"{name} has taken it and does not say whether it keeps it.")
    refusal = faults.refused(name, reason)
    return ModalityError(
        f"{name} has it and does not confirm that it keeps it. {refusal.message}",
        dimse_status=refusal.dimse_status,
    )


@contextmanager
def _fetched(files: OrthancFiles, instance: SentInstance) -> Iterator[Path]:
    """Fetch a file for as long as the context is open; blocks."""
    with tempfile.NamedTemporaryFile(suffix=".dcm") as file:
        files.fetch(instance.instance_id, cast("Any", file))
        file.flush()
        yield Path(file.name)


class _Outcomes:
    """Counts what became of instances.

    Attributes:
        unsent: Those whose encoding is not taken.
    """

    def __init__(self, job: RunningJob, sent: "_Sent") -> None:
        self._job = job
        self._sent = sent
        self._loop = asyncio.get_running_loop()
        self.unsent: list[SentInstance] = []

    def report(self, delivered: Delivered) -> None:
        """Count an instance; of the thread that sends."""
        self._loop.call_soon_threadsafe(self.take, delivered)

    def take(self, delivered: Delivered) -> None:
        """Count an instance."""
        job, instance = self._job, delivered.instance
        if delivered.delivery is Delivery.UNSENT:
            self.unsent.append(instance)
        elif delivered.delivery is Delivery.FAILED:
            job.fail(instance.sop_instance_uid, delivered.error or Error())
        else:
            self._sent.add(instance)
            warnings = job.warnings + (delivered.delivery is Delivery.WARNING)
            job.progress(completed=job.completed + 1, warnings=warnings)


class _Sent:
    """The instances that a job has sent, in its checkpoint."""

    def __init__(self, marks: set[bytes]) -> None:
        self._marks = marks
        self._is_changed = False

    @classmethod
    def of(cls, job: RunningJob) -> "_Sent":
        """Read what earlier attempts have sent."""
        sent = cls(set())
        sent.merge(bytes(job.checkpoint.get("sent", b"")))
        return sent

    @property
    def marks(self) -> bytes:
        """All of them, as they are stored."""
        return _join(self._marks)

    def merge(self, stored: bytes) -> None:
        """Add what is stored elsewhere."""
        self._marks |= _split(stored)

    def __contains__(self, instance: SentInstance) -> bool:
        return _mark(instance) in self._marks

    def add(self, instance: SentInstance) -> None:
        """Add an instance."""
        self._marks.add(_mark(instance))
        self._is_changed = True

    def discard(self, instance: SentInstance) -> None:
        """Remove an instance that is not there any more."""
        self._marks.discard(_mark(instance))

    @asynccontextmanager
    async def saved(self, job: RunningJob) -> AsyncIterator[None]:
        """Keep the checkpoint of a job up to date while the block runs, and at its end."""
        saving = asyncio.create_task(self._save_regularly(job))
        try:
            yield
        finally:
            await cancel_and_wait(saving)
            # Reports of a thread that has just ended.
            await asyncio.sleep(0)
            await self._save(job)

    async def _save_regularly(self, job: RunningJob) -> None:
        while True:
            await asyncio.sleep(_SAVE_SECONDS)
            await self._save(job)

    async def _save(self, job: RunningJob) -> None:
        if self._is_changed:
            self._is_changed = False
            await job.save({**job.checkpoint, "sent": self.marks})


def _join(marks: Iterable[bytes]) -> bytes:
    return b"".join(sorted(marks))


def _split(stored: bytes) -> set[bytes]:
    return {stored[at : at + _MARK_BYTES] for at in range(0, len(stored), _MARK_BYTES)}


def _mark(instance: SentInstance) -> bytes:
    said = f"{instance.instance_id} {instance.revision}"
    return hashlib.sha256(said.encode()).digest()[:_MARK_BYTES]
