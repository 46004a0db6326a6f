"""Jobs that fetch studies from a modality (RETRIEVE).

What the modality has is listed first, instance by instance, so that a job knows its total, fetches
only what is missing, and can say afterwards what did not come. The memory of earlier attempts is
the index of instances: a job keeps no list of its own.
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, JobDocument, JobKind, JobState, StudyDocument
from models.modality import DicomService, ModalityDocument, RetrieveMethod
from models.stored import stored_name
from services.auth.roles import Principal
from services.database import translated_database_faults
from services.dicom.header import InstanceHeader
from services.dicom.values import clean_identifier
from services.errors import (
    DatabaseUnavailable,
    Error,
    InvalidInput,
    ModalityError,
    ModalityUnreachable,
    ModalityUnsupported,
    NotFound,
    NotRequested,
    OrthancFull,
    OrthancUnavailable,
    PacsDisabled,
)
from services.ingest.results import StoreResult, StoreStatus
from services.ingest.service import Ingest, SentFile
from services.jobs.handler import NewJob, RunningJob
from services.jobs.service import Jobs
from services.modalities.association import Link, Peer
from services.modalities.query import ListedStudy, list_studies, require_uid
from services.modalities.service import Modalities
from services.modalities.sources import StudySources
from services.modalities.transfer import (
    Outcome,
    Request,
    SubOperations,
    get,
    move,
    not_transferred,
    plan_requests,
)
from services.tasks import cancel_and_wait

_STUDY_INSTANCE_UID = stored_name(StudyDocument.study_instance_uid)
_PATIENT_ID = stored_name(StudyDocument.patient_id)
_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_SOP_INSTANCE_UID = stored_name(InstanceDocument.sop_instance_uid)

_UIDS_MAX = 500
"""Studies, and series, of one job."""

_INSTANCES_MAX = 100_000
"""Instances of one study that are listed."""

_ARRIVAL_SECONDS = 15.0
"""What a C-MOVE has sent is in the index after about a second; after so long without a new instance
the rest has not come."""

_POLL_SECONDS = 0.5

_STORED = {StoreStatus.STORED, StoreStatus.ALREADY_STORED}

_OUT_OF_RESOURCES = 0xA700
_CANNOT_UNDERSTAND = 0xC000
_PROCESSING_FAILURE = 0x0110
_DUPLICATE = 0x0111
_NOT_ASKED_FOR = 0xA900
"""Statuses of C-STORE (PS3.4 B.2.3)."""


def new_retrieve(
    modality: str, study_instance_uids: Sequence[str], series_instance_uids: Sequence[str]
) -> NewJob:
    """Describe a job that fetches.

    Args:
        modality: Name of the modality.
        study_instance_uids: What is fetched; 1 to 500.
        series_instance_uids: Only these series; empty: all.

    Raises:
        InvalidInput: There are no or too many UIDs, or one is none.
    """
    studies = _unique_uids("studyInstanceUIDs", study_instance_uids)
    series = _unique_uids("seriesInstanceUIDs", series_instance_uids)
    if not studies:
        message = "studyInstanceUIDs: at least one."
        raise InvalidInput(message, argument="studyInstanceUIDs")
    same = hashlib.sha256("|".join([*sorted(studies), "", *sorted(series)]).encode()).hexdigest()
    return NewJob(
        kind=JobKind.RETRIEVE,
        parameters={"series": series},
        study_instance_uids=studies,
        modality=modality,
        once=f"retrieve:{modality}:{same}",
    )


def _unique_uids(argument: str, uids: Sequence[str]) -> list[str]:
    if len(uids) > _UIDS_MAX:
        raise InvalidInput(f"{argument}: at most {_UIDS_MAX}.", argument=argument)
    return list(dict.fromkeys(require_uid(argument, uid) for uid in uids))


async def start_retrieve(
    jobs: Jobs, new: NewJob, principal: Principal, *, correlation_id: str
) -> JobDocument:
    """Start a job that fetches, or return one under way that fetches the same and more.

    Raises:
        TooManyRequests: The principal has too many jobs.
        DatabaseUnavailable: MongoDB does not answer.
    """
    wanted = set(new.study_instance_uids)
    for job in await jobs.active(
        kind=JobKind.RETRIEVE,
        modality=new.modality,
        study_instance_uids=new.study_instance_uids,
        principal=principal,
    ):
        is_whole = not job.parameters.get("series")
        if (
            is_whole
            and job.state is not JobState.CANCELLING
            and wanted <= {*job.study_instance_uids}
        ):
            return job
    return await jobs.start(new, principal, correlation_id=correlation_id)


@dataclass(slots=True)
class _Study:
    """A study that is fetched.

    Attributes:
        listed: What the modality has of it.
        held: SOPInstanceUIDs that are here.
        failures: Why instances did not come, by SOPInstanceUID.
    """

    listed: ListedStudy
    held: set[str]
    failures: dict[str, Error]

    @property
    def missing(self) -> list[str]:
        """SOPInstanceUIDs that are not here."""
        uids = (one.sop_instance_uid for one in self.listed.instances)
        return [uid for uid in uids if uid not in self.held]


class RetrieveJobs:
    """Runs the jobs that fetch.

    Args:
        modalities: From whom.
        ingest: Stores what comes by C-GET, like an upload.
        database: Whose index says what is here.
        file_bytes_max: Of one file by C-GET.
    """

    kind: ClassVar[JobKind] = JobKind.RETRIEVE

    def __init__(
        self,
        modalities: Modalities,
        ingest: Ingest,
        database: AsyncDatabase[dict[str, Any]],
        *,
        file_bytes_max: int,
    ) -> None:
        self._file_bytes_max = file_bytes_max
        self._modalities = modalities
        self._ingest = ingest
        self._studies = database[StudyDocument.Settings.name]
        self._instances = database[InstanceDocument.Settings.name]
        self._sources = StudySources(database, None)

    async def run(self, job: RunningJob) -> None:
        """Fetch what is missing of the studies of a job."""
        modality = await self._modalities.require(job.modality or "")
        series = frozenset(job.parameters.get("series", ()))
        studies = await self._list(job, modality, series)
        held = sum(len(one.listed.instances) - len(one.missing) for one in studies)
        job.progress(total=sum(len(one.listed.instances) for one in studies), completed=held)
        await job.flush()
        for study in studies:
            if study.missing:
                await self._sources.record_retrieval(
                    job.id, modality.ae_title, study.listed.study_instance_uid, study.missing
                )
                await self._fetch(job, modality, study, is_whole=not series)
            for uid in study.missing:
                job.fail(uid, study.failures.get(uid) or _did_not_come(modality.id))
            job.add_results(*await self._study_ids(study.listed))
        job.progress(completed=sum(len(one.listed.instances) - len(one.missing) for one in studies))

    async def discard(self, job: RunningJob) -> None:
        """Keep what has come: each instance of it is whole."""

    async def _list(
        self, job: RunningJob, modality: ModalityDocument, series: frozenset[str]
    ) -> list[_Study]:
        peer = await self._modalities.peer(modality, DicomService.FIND)
        work = partial(
            list_studies,
            study_instance_uids=job.study_instance_uids,
            series_instance_uids=series,
            limit=_INSTANCES_MAX,
        )
        listed = await self._modalities.network.run_job(Link(peer), work)
        for uid in job.study_instance_uids:
            if uid not in listed:
                job.fail(None, NotFound(f"{modality.id} has no study of this StudyInstanceUID."))
        return [_Study(one, await self._held(one), {}) for one in listed.values()]

    async def _fetch(
        self, job: RunningJob, modality: ModalityDocument, study: _Study, *, is_whole: bool
    ) -> None:
        """Fetch what is missing of one study, by the way that the modality offers."""
        methods: dict[RetrieveMethod, list[Callable[..., Awaitable[None]]]] = {
            RetrieveMethod.AUTO: [self._get, self._move],
            RetrieveMethod.GET: [self._get],
            RetrieveMethod.MOVE: [self._move],
        }
        *first, last = methods[modality.retrieve_method]
        for method in first:
            try:
                await method(job, modality, study, is_whole=is_whole)
            except ModalityUnsupported:
                continue
            if not await self._can_move(modality, study):
                return
        if study.missing:
            await last(job, modality, study, is_whole=is_whole)

    async def _can_move(self, modality: ModalityDocument, study: _Study) -> bool:
        """Return whether C-MOVE may bring what C-GET could not: other encodings, for example."""
        is_refused = all(isinstance(one, ModalityError) for one in study.failures.values())
        if not study.missing or not is_refused or DicomService.MOVE not in modality.allows:
            return False
        return (await self._modalities.listener()).port is not None

    async def _get(
        self, job: RunningJob, modality: ModalityDocument, study: _Study, *, is_whole: bool
    ) -> None:
        peer = await self._modalities.peer(modality, DicomService.GET)
        link = Link(peer)
        receiver = _Receiver(self._ingest, job, study, link)
        outcome = await self._modalities.network.run_job(
            link,
            partial(
                get,
                requests=_requests(study, is_whole=is_whole),
                sop_classes=study.listed.sop_classes,
                store=receiver.store,
                report=lambda _: None,
                file_bytes_max=self._file_bytes_max,
            ),
        )
        if receiver.halted is not None:
            raise receiver.halted
        _add_failures(peer, study, outcome)

    async def _move(
        self, job: RunningJob, modality: ModalityDocument, study: _Study, *, is_whole: bool
    ) -> None:
        peer = await self._modalities.peer(modality, DicomService.MOVE)
        listener = await self._modalities.listener()
        if listener.port is None:
            raise ModalityUnsupported(
                "C-MOVE needs a DICOM port of this server. Set ORTHANC_DICOM_PORT, and enter this "
                f"server's AE title, host and port at {modality.id}."
            )
        study.failures.clear()
        link = Link(peer)
        before = job.completed
        loop = asyncio.get_running_loop()

        def report(counts: SubOperations) -> None:
            done = before + counts.completed + counts.warnings
            loop.call_soon_threadsafe(partial(job.progress, completed=done))

        async with self._watching_arrivals(link, job, study, before):
            outcome = await self._modalities.network.run_job(
                link,
                partial(
                    move,
                    requests=_requests(study, is_whole=is_whole),
                    destination=listener.ae_title,
                    report=report,
                ),
            )
        _add_failures(peer, study, outcome)
        await self._until_arrived(study)

    @asynccontextmanager
    async def _watching_arrivals(
        self, link: Link, job: RunningJob, study: _Study, before: int
    ) -> AsyncIterator[None]:
        """Take arrivals for signs of life: many archives say nothing until everything is sent."""

        async def watch() -> None:
            while True:
                await asyncio.sleep(2 * _POLL_SECONDS)
                missing = len(study.missing)
                study.held |= await self._held(study.listed)
                arrived = missing - len(study.missing)
                if arrived:
                    link.touch()
                    came = len(study.listed.instances) - len(study.missing)
                    job.progress(completed=max(job.completed, before + came - held))

        held = len(study.held)
        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            await cancel_and_wait(watching)

    async def _until_arrived(self, study: _Study) -> None:
        """Wait until what was sent to Orthanc is in the index, or nothing more comes."""
        loop = asyncio.get_running_loop()
        quiet_since = loop.time()
        while True:
            before = len(study.missing)
            study.held |= await self._held(study.listed)
            if all(uid in study.failures for uid in study.missing):
                return
            if len(study.missing) < before:
                quiet_since = loop.time()
            if loop.time() - quiet_since >= _ARRIVAL_SECONDS:
                return
            await asyncio.sleep(_POLL_SECONDS)

    async def _held(self, listed: ListedStudy) -> set[str]:
        """Return the SOPInstanceUIDs of a study that are here, of the same patient."""
        ids = await self._study_ids(listed)
        if not ids:
            return set()
        with translated_database_faults():
            found = await self._instances.find(
                {_ORTHANC_STUDY_ID: {"$in": ids}}, {_SOP_INSTANCE_UID: 1}
            ).to_list()
        return {str(one[_SOP_INSTANCE_UID]) for one in found}

    async def _study_ids(self, listed: ListedStudy) -> list[str]:
        with translated_database_faults():
            found = await self._studies.find(
                {_STUDY_INSTANCE_UID: listed.study_instance_uid}, {_PATIENT_ID: 1}
            ).to_list()
        return [one["_id"] for one in found if _is_of(listed, one)]


def _is_of(listed: ListedStudy, stored: Mapping[str, Any]) -> bool:
    own = clean_identifier(stored.get(_PATIENT_ID))
    return listed.patient_id is None or listed.patient_id == own


def _require_listed(listed: ListedStudy, sop_instance_uid: str, header: InstanceHeader) -> None:
    """Require that a file is what was asked for, and not one of another study or patient.

    Raises:
        NotRequested: It is not.
    """
    patient_id = clean_identifier(header.patient.patient_id)
    if (
        header.sop_instance_uid != sop_instance_uid
        or header.study.study_instance_uid != listed.study_instance_uid
        or listed.patient_id not in (None, patient_id)
    ):
        raise NotRequested


def _requests(study: _Study, *, is_whole: bool) -> Sequence[Request]:
    return plan_requests(
        study.listed.study_instance_uid,
        study.listed.instances,
        set(study.missing),
        is_whole=is_whole,
    )


def _add_failures(peer: Peer, study: _Study, outcome: Outcome) -> None:
    for uid in outcome.failed_uids:
        study.failures.setdefault(uid, not_transferred(peer.name, outcome.status))


def _did_not_come(name: str) -> ModalityError:
    return ModalityUnreachable(
        f"{name} has it, and it did not come. Look at the log of {name}; with C-MOVE check that it "
        "knows the host and DICOM port of this server, and that it is declared here with its own "
        "AE title, host and STORE."
    )


class _Receiver:
    """Takes the files of a C-GET, in the thread of the association.

    Attributes:
        halted: Why nothing more can be stored; None while it can.
    """

    def __init__(self, ingest: Ingest, job: RunningJob, study: _Study, link: Link) -> None:
        self._ingest = ingest
        self._job = job
        self._study = study
        self._link = link
        self._expected = {one.sop_instance_uid for one in study.listed.instances}
        self._loop = asyncio.get_running_loop()
        self.halted: Error | None = None

    def store(self, path: Path, sop_instance_uid: str) -> int:
        """Store a file like an upload; returns the status that the modality gets."""
        if self.halted is not None:
            return _OUT_OF_RESOURCES
        if sop_instance_uid not in self._expected:
            return _NOT_ASKED_FOR
        storing = asyncio.run_coroutine_threadsafe(
            self._ingest.store(
                [SentFile.from_path(path)],
                caller=f"job:{self._job.id}",
                require=partial(_require_listed, self._study.listed, sop_instance_uid),
            ),
            self._loop,
        )
        try:
            [result] = storing.result()
        except PacsDisabled as exc:
            return self._halt(exc)
        return self._status(sop_instance_uid, result)

    def _status(self, uid: str, result: StoreResult) -> int:
        if result.status in _STORED:
            self._loop.call_soon_threadsafe(self._hold, uid)
            return 0x0000
        error = result.error or Error()
        if isinstance(error, OrthancFull | OrthancUnavailable | DatabaseUnavailable):
            return self._halt(error)
        self._study.failures[uid] = error
        if result.status is StoreStatus.CONFLICT:
            return _DUPLICATE
        is_file = result.status is StoreStatus.REJECTED
        return _CANNOT_UNDERSTAND if is_file else _PROCESSING_FAILURE

    def _halt(self, error: Error) -> int:
        self.halted = error
        self._link.cancel()
        return _OUT_OF_RESOURCES

    def _hold(self, uid: str) -> None:
        if uid not in self._study.held:
            self._study.held.add(uid)
            self._job.advance()
