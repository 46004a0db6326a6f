"""Modalities: declared in MongoDB, mirrored to Orthanc, tried and asked."""

import asyncio
import logging
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeVar

from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase

from models.modality import DicomService, EchoRecord, ModalityDocument
from models.stored import stored_name
from services.database import translated_database_faults
from services.embedded.orthanc_configuration import TlsFiles
from services.errors import (
    Error,
    InvalidInput,
    ModalityError,
    ModalityUnsupported,
    NotFound,
    OrthancError,
    OrthancNotFound,
)
from services.index.record import to_stored_precision
from services.jobs.handler import error_record
from services.modalities import faults
from services.modalities.association import Link, Network, Peer, echo, open_network
from services.modalities.declaration import (
    Declaration,
    is_mirrored,
    is_name,
    orthanc_configuration,
)
from services.modalities.query import (
    PATIENTS,
    STUDIES,
    WORKLIST,
    Found,
    RemoteCriteria,
    RemotePatientRecord,
    RemoteSeriesRecord,
    RemoteStudyRecord,
    RemoteWorklistRecord,
    WorklistQuery,
    find,
    find_series,
    patient_keys,
    patient_record,
    records,
    study_keys,
    study_record,
    worklist_keys,
    worklist_record,
)
from services.modalities.tls import client_context
from services.orthanc.client import OrthancClient
from services.tasks import finish_in_thread

_LAST_ECHO = stored_name(ModalityDocument.last_echo)
_CREATED_AT = stored_name(ModalityDocument.created_at)
_USE_TLS = stored_name(ModalityDocument.use_tls)
_REMOVED_AT = stored_name(ModalityDocument.removed_at)

DEFAULT_AE_TITLE = "ORTHANC"

_MIRROR_SECONDS = 30.0
"""An Orthanc that keeps no modalities over its restart lacks them for as long."""

_RESOLVE_SECONDS = 3.0

_log = logging.getLogger(__name__)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Listener:
    """Where modalities reach this server.

    Attributes:
        ae_title: Of Orthanc, which listens.
        port: Of its DICOM server; None: it has none.
        uses_tls: Whether connections to it must be encrypted; None: unknown.
    """

    ae_title: str
    port: int | None
    uses_tls: bool | None


class Modalities:
    """The modalities of this server.

    Args:
        database: Where they are kept.
        orthanc: Lets them in by what is declared; None while PACS integration is off.
        network: Runs associations.
        ae_title: This server's; None: that of Orthanc.
        own_port: DICOM port of the embedded Orthanc; None: it has none.
        is_embedded: Whether Orthanc is the embedded one.
        tls: Of connections to modalities that use TLS; None: there are no certificates.
        requires_tls: Whether the embedded Orthanc takes encrypted connections only.
        query_seconds: Longest time of a query.
        answers_max: Most answers of a query.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        orthanc: OrthancClient | None,
        network: Network,
        *,
        ae_title: str | None,
        own_port: int | None,
        is_embedded: bool,
        tls: ssl.SSLContext | None = None,
        requires_tls: bool = False,
        query_seconds: float,
        answers_max: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._modalities = database[ModalityDocument.Settings.name]
        self._orthanc = orthanc
        self.network = network
        self._ae_title = ae_title
        self._own_port = own_port
        self._is_embedded = is_embedded
        self._tls = tls
        self._requires_tls = requires_tls
        self.query_seconds = query_seconds
        self.answers_max = answers_max
        self._now = now

    async def declare(self, declaration: Declaration) -> ModalityDocument:
        """Declare a modality, or change the one of this name.

        Orthanc lets it in from then on; one that is away does so when it is back.

        Raises:
            InvalidInput: It uses TLS, and this server has no certificates.
            DatabaseUnavailable: MongoDB does not answer.
        """
        if declaration.use_tls and self._tls is None:
            raise InvalidInput(f"{_USE_TLS}: {faults.NO_CERTIFICATES}", argument=_USE_TLS)
        now = to_stored_precision(self._now())
        changes = {
            stored_name(ModalityDocument.ae_title): declaration.ae_title,
            stored_name(ModalityDocument.host): declaration.host,
            stored_name(ModalityDocument.port): declaration.port,
            stored_name(ModalityDocument.description): declaration.description,
            stored_name(ModalityDocument.allows): [str(one) for one in declaration.allows],
            stored_name(ModalityDocument.retrieve_method): str(declaration.retrieve_method),
            stored_name(ModalityDocument.timeout_seconds): declaration.timeout_seconds,
            _USE_TLS: declaration.use_tls,
            stored_name(ModalityDocument.updated_at): now,
        }
        with translated_database_faults():
            stored = await self._modalities.find_one_and_update(
                {"_id": declaration.name},
                # What was tried of the address before says nothing of this one.
                {
                    "$set": changes,
                    "$setOnInsert": {_CREATED_AT: now},
                    "$unset": {_REMOVED_AT: "", _LAST_ECHO: ""},
                },
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        modality: ModalityDocument = ModalityDocument.model_validate(stored)
        await self._mirror_now()
        return modality

    async def remove(self, name: str) -> bool:
        """Remove a modality: Orthanc does not let it in any more.

        Returns:
            Whether there was one.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            # Kept until Orthanc has forgotten it, too.
            result = await self._modalities.update_one(
                {"_id": name, _REMOVED_AT: None}, {"$set": {_REMOVED_AT: self._now()}}
            )
        if result.matched_count:
            await self._mirror_now()
        return bool(result.matched_count)

    async def read_all(self) -> Sequence[ModalityDocument]:
        """Read all modalities, by name."""
        with translated_database_faults():
            found = await self._modalities.find({_REMOVED_AT: None}, sort=[("_id", 1)]).to_list()
        return [ModalityDocument.model_validate(one) for one in found]

    async def find(self, name: str) -> ModalityDocument | None:
        """Read a modality by its name; None when there is none."""
        if not is_name(name):
            return None
        with translated_database_faults():
            found = await self._modalities.find_one({"_id": name, _REMOVED_AT: None})
        return None if found is None else ModalityDocument.model_validate(found)

    async def require(self, name: str) -> ModalityDocument:
        """Read a modality by its name.

        Raises:
            NotFound: There is none.
            DatabaseUnavailable: MongoDB does not answer.
        """
        found = await self.find(name)
        if found is None:
            raise NotFound("There is no modality of this name. `modalities` lists them.")
        return found

    async def ae_title(self) -> str:
        """Return the AE title of this server.

        Raises:
            OrthancError: It is that of Orthanc, which does not answer.
        """
        if self._ae_title is None and self._orthanc is not None:
            self._ae_title = (await self._orthanc.system()).dicom_aet or DEFAULT_AE_TITLE
        return self._ae_title or DEFAULT_AE_TITLE

    async def listener(self) -> Listener:
        """Return what the other side must enter to reach this server.

        Raises:
            OrthancError: Orthanc, which listens, does not answer.
        """
        ae_title, port = await self.ae_title(), self._own_port
        if self._is_embedded:
            return Listener(ae_title, port, self._requires_tls)
        if port is None and self._orthanc is not None:
            port = (await self._orthanc.system()).dicom_port
        return Listener(ae_title, port, None)

    async def peer(self, modality: ModalityDocument, *services: DicomService) -> Peer:
        """Return how to reach a modality for a service.

        Args:
            modality: Which.
            services: One of these must be allowed.

        Raises:
            ModalityUnsupported: It was declared without it.
            OrthancError: The AE title of this server is unknown while Orthanc is away.
        """
        if not set(services) & set(modality.allows):
            raise faults.not_allowed(modality.id, " or ".join(services))
        if modality.use_tls and self._tls is None:
            raise ModalityUnsupported(f"{modality.id} uses TLS. {faults.NO_CERTIFICATES}")
        return Peer(
            name=modality.id,
            ae_title=modality.ae_title,
            host=modality.host,
            port=modality.port,
            calling=await self.ae_title(),
            silence_seconds=modality.timeout_seconds,
            tls=self._tls if modality.use_tls else None,
        )

    async def require_service(self, name: str, service: DicomService, *, commit: bool) -> None:
        """Require that a modality is there and may be asked, before a job is started for it.

        Args:
            name: Of the modality.
            service: What it is asked for.
            commit: Whether it must report to this server as well.

        Raises:
            NotFound: There is no such modality.
            ModalityUnsupported: It was declared without it, or this server has no DICOM port.
        """
        modality = await self.require(name)
        await self.peer(modality, service)
        if commit:
            await self.peer(modality, DicomService.STORAGE_COMMITMENT)
            if (await self.listener()).port is None:
                raise ModalityUnsupported(
                    "Storage commitment needs a DICOM port of this server, to which the modality "
                    "reports. Set ORTHANC_DICOM_PORT."
                )

    async def echo(self, name: str) -> EchoRecord:
        """Try whether a modality is there, and keep the outcome.

        Raises:
            NotFound: There is none of this name.
            DatabaseUnavailable: MongoDB does not answer.
        """
        modality = await self.require(name)
        begun, at = time.monotonic(), to_stored_precision(self._now())
        error = None
        try:
            peer = await self.peer(modality, DicomService.ECHO)
            await self.network.run(peer, echo)
        except (ModalityError, OrthancError) as exc:
            error = error_record(exc)
        milliseconds = round((time.monotonic() - begun) * 1000)
        record = EchoRecord(at=at, milliseconds=milliseconds, error=error)
        with translated_database_faults():
            await self._modalities.update_one(
                {"_id": name}, {"$set": {_LAST_ECHO: record.model_dump(by_alias=True)}}
            )
        return record

    async def find_patients(
        self, name: str, criteria: RemoteCriteria, first: int
    ) -> list[RemotePatientRecord]:
        """Search patients at a modality, in its order; arguments and errors: `find_studies`.

        Raises:
            ModalityError: It failed, also when something had come before.
        """
        keys = patient_keys(criteria)
        found = await self._ask(name, partial(find, model=PATIENTS, keys=keys, limit=first))
        if found.fault is not None:
            raise found.fault
        return records(found.answers, patient_record)

    async def find_studies(
        self, name: str, criteria: RemoteCriteria, first: int
    ) -> tuple[list[RemoteStudyRecord], bool]:
        """Search studies at a modality.

        Args:
            name: Of the modality.
            criteria: Which studies.
            first: How many at most.

        Returns:
            The studies in its order, and whether more is there: the limit or the time was reached,
            or the modality failed in the middle.

        Raises:
            InvalidInput: The criteria make no sense.
            NotFound: There is no such modality.
            ModalityError: Nothing was answered, and why.
            TooManyRequests: Too many queries run.
        """
        keys = study_keys(criteria)
        found: Found = await self._ask(name, partial(find, model=STUDIES, keys=keys, limit=first))
        return records(found.answers, study_record), found.is_incomplete

    async def find_series(
        self, name: str, study_instance_uids: Sequence[str]
    ) -> dict[str, list[RemoteSeriesRecord]]:
        """Search the series of studies at a modality, by StudyInstanceUID.

        Raises:
            NotFound: There is no such modality.
            ModalityError: They are not all there, and why.
            TooManyRequests: Too many queries run.
        """
        work = partial(find_series, study_instance_uids=study_instance_uids, limit=self.answers_max)
        return await self._ask(name, work)

    async def find_worklist(
        self, name: str, criteria: WorklistQuery, first: int
    ) -> list[RemoteWorklistRecord]:
        """Search planned examinations at a modality; arguments and errors: `find_patients`."""
        keys = worklist_keys(criteria)
        work = partial(find, model=WORKLIST, keys=keys, limit=first)
        found = await self._ask(name, work, DicomService.FIND_WORKLIST)
        if found.fault is not None:
            raise found.fault
        return [worklist_record(answer) for answer in found.answers]

    async def _ask(
        self, name: str, work: Callable[[Link], _T], service: DicomService = DicomService.FIND
    ) -> _T:
        modality = await self.require(name)
        peer = await self.peer(modality, service)
        return await self.network.run(peer, work, seconds=self.query_seconds)

    async def run(self) -> None:
        """Keep Orthanc's list of modalities in step, until it is cancelled."""
        while True:
            await self._mirror_now()
            await asyncio.sleep(_MIRROR_SECONDS)

    async def _mirror_now(self) -> None:
        """Mirror what is declared; an Orthanc that is away gets it later."""
        try:
            await self.mirror()
        except Error as exc:
            _log.warning("modalities are not in Orthanc yet: %s", exc.detail or exc.message)

    async def mirror(self) -> None:
        """Declare in Orthanc what is declared here, and remove what was removed here.

        Modalities that only Orthanc knows stay as they are.

        Raises:
            OrthancError: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        if self._orthanc is None:
            return
        with translated_database_faults():
            found = await self._modalities.find().to_list()
        known = await self._orthanc.modalities() if found else {}
        for one in found:
            modality: ModalityDocument = ModalityDocument.model_validate(one)
            if modality.removed_at is not None:
                await self._forget(modality)
                continue
            wanted = orthanc_configuration(modality, await _address(modality.host))
            if not is_mirrored(wanted, known.get(modality.id)):
                await self._orthanc.declare_modality(modality.id, wanted)

    async def _forget(self, modality: ModalityDocument) -> None:
        assert self._orthanc is not None  # noqa: S101  # `mirror` has checked it
        with suppress(OrthancNotFound):
            await self._orthanc.remove_modality(modality.id)
        with translated_database_faults():
            # Unless it was declared again meanwhile.
            await self._modalities.delete_one({"_id": modality.id, _REMOVED_AT: {"$ne": None}})


async def _address(host: str) -> str:
    """Return the address of a host: Orthanc compares that of a sender with it letter by letter."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(_RESOLVE_SECONDS):
            found = await loop.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        return host
    addresses = [str(address[0]) for family, *_, address in found if family == socket.AF_INET]
    return addresses[0] if addresses else host


@asynccontextmanager
async def open_modalities(
    database: AsyncDatabase[dict[str, Any]],
    orthanc: OrthancClient | None,
    *,
    ae_title: str | None,
    own_port: int | None,
    is_embedded: bool,
    tls: TlsFiles | None,
    requires_tls: bool,
    query_seconds: float,
    answers_max: int,
) -> AsyncIterator[Modalities]:
    """Open the modalities; arguments are those of `Modalities`.

    Raises:
        TlsFilesUnusable: A certificate can't be used.
    """
    context = None if tls is None else await finish_in_thread(client_context, tls)
    async with open_network() as network:
        yield Modalities(
            database,
            orthanc,
            network,
            ae_title=ae_title,
            own_port=own_port,
            is_embedded=is_embedded,
            tls=context,
            requires_tls=requires_tls,
            query_seconds=query_seconds,
            answers_max=answers_max,
        )
