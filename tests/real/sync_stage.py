"""What the tests of synchronizing share: made instances, and services on the real stores."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import httpx
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import ConnectionFailure

from services.database import open_database
from services.dicom.layout import WalkLimits
from services.embedded.data_dir import Stores
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.errors import DatabaseUnavailable
from services.index.indexer import Indexer, open_indexer
from services.orthanc.client import OrthancClient
from services.orthanc.files import OrthancFiles, open_orthanc_files
from services.orthanc.transport import open_http_client
from services.settings import Settings
from services.sync.service import SyncService
from tests.clients import http_client
from tests.databases import lent_database
from tests.instances import (
    instance_bytes as instance_bytes,  # noqa: PLC0414  # where the tests look for it
)
from tests.patience import PATIENCE_SECONDS

LIMITS = WalkLimits()


@dataclass(frozen=True, slots=True)
class Stage:
    """Services on the real stores.

    Attributes:
        http: The client of Orthanc that the services use.
        modality: Another client of Orthanc.
    """

    database: AsyncDatabase[dict[str, Any]]
    database_name: str
    http: httpx.AsyncClient
    modality: httpx.AsyncClient
    orthanc: OrthancClient
    files: OrthancFiles
    indexer: Indexer
    sync: SyncService

    async def send(self, files: Iterable[bytes]) -> list[str]:
        """Post files straight to Orthanc; answers the instances' ids."""
        gate = asyncio.Semaphore(4)

        async def post(content: bytes) -> str:
            async with gate:
                answer = await self.modality.post("/instances", content=content)
            assert answer.is_success, answer.text
            return str(answer.json()["ID"])

        return await asyncio.gather(*map(post, files))

    async def instance_ids(self) -> set[str]:
        """Return the ids of what is indexed."""
        return {found["_id"] async for found in self.database["instances"].find({}, {"_id": 1})}

    async def held_ids(self) -> set[str]:
        """Return the ids of what Orthanc holds."""
        return set((await self.modality.get("/instances")).json())

    async def counts(self) -> dict[str, list[tuple[int, ...]]]:
        """Return every count in the index, by collection."""
        studies = self.database["studies"].find({}).sort("studyInstanceUID")
        series = self.database["series"].find({}).sort("seriesInstanceUID")
        patients = self.database["patients"].find({}).sort("patientID")
        return {
            "studies": [
                (one["numberOfSeries"], one["numberOfInstances"], one["numberOfFrames"])
                async for one in studies
            ],
            "series": [(one["numberOfInstances"], one["numberOfFrames"]) async for one in series],
            "patients": [(one["numberOfStudies"],) async for one in patients],
        }

    async def is_in_step(self) -> bool:
        """Tell whether both stores hold the same and every count is right; no while one is away."""
        try:
            return await self._is_the_same()
        except (httpx.TransportError, ConnectionFailure, DatabaseUnavailable):
            return False

    async def _is_the_same(self) -> bool:
        if await self.instance_ids() != await self.held_ids():
            return False
        studies = [found["_id"] async for found in self.database["studies"].find({}, {"_id": 1})]
        held = set((await self.modality.get("/studies")).json())
        roll_ups = self.sync.comparison.roll_ups
        return set(studies) == held and not await roll_ups.roll_up(studies, dry_run=True)


async def eventually(
    condition: Callable[[], Awaitable[bool]], *, within_seconds: float = PATIENCE_SECONDS
) -> None:
    """Wait for a condition; fail when it does not come true."""
    async with asyncio.timeout(within_seconds):
        while not await condition():  # noqa: ASYNC110  # the condition is in other processes
            await asyncio.sleep(0.05)


def modality_client(orthanc: EmbeddedOrthanc | Settings | Stores) -> httpx.AsyncClient:
    """Make another client of Orthanc.

    It keeps no connection: Orthanc closes those that are idle for a second, and on a busy machine a
    request would meet the end of its connection.
    """
    match orthanc:
        case EmbeddedOrthanc(url=url, username=username, password=password):
            pass
        case Settings(orthanc_url=url, orthanc_username=username):
            password = orthanc.orthanc_password.get_secret_value()
        case Stores(orthanc_url=url, orthanc_username=username, orthanc_password=password):
            pass
    no_kept = httpx.Limits(max_keepalive_connections=0)
    return http_client(url or "", auth=(username, password), limits=no_kept)


@asynccontextmanager
async def open_stage(
    mongodb: EmbeddedMongod,
    orthanc: EmbeddedOrthanc,
    *,
    database_name: str | None = None,
    interval_seconds: float = 60,
    poll_seconds: float = 0.2,
) -> AsyncIterator[Stage]:
    """Open the services; a database without a name is empty."""
    async with (
        nullcontext(database_name) if database_name else lent_database(mongodb) as name,
        open_database(mongodb.url, name) as database,
        open_indexer(database) as indexer,
        open_http_client(orthanc.url, orthanc.username, orthanc.password) as http,
        modality_client(orthanc) as modality,
        open_orthanc_files(orthanc.url, orthanc.username, orthanc.password) as files,
    ):
        client = OrthancClient(http)
        sync = SyncService(
            client,
            files.beginnings,
            database,
            indexer,
            poll_seconds=poll_seconds,
            interval_seconds=interval_seconds,
            limits=LIMITS,
        )
        yield Stage(database, name, http, modality, client, files, indexer, sync)


@asynccontextmanager
async def running(service: SyncService) -> AsyncIterator[None]:
    """Run the service in the background."""
    task = asyncio.create_task(service.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
