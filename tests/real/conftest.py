"""The real servers: one MongoDB and one Orthanc for all tests, empty for each that asks."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.embedded.mongod import EmbeddedMongod, run_mongod
from services.embedded.orthanc import EmbeddedOrthanc, run_orthanc
from services.embedded.orthanc_configuration import DicomServer
from services.embedded.ports import find_free_port
from services.runtime import Runtime, open_runtime
from services.settings import Settings
from tests.databases import lent_database, sharing_databases
from tests.real.sync_stage import modality_client
from tests.servers import RunningServer, run_server, settings_on


@pytest.fixture(scope="session")
async def mongodb(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedMongod]:
    async with (
        run_mongod(tmp_path_factory.mktemp("mongodb")) as mongod,
        sharing_databases(mongod),
    ):
        yield mongod


@pytest.fixture(scope="session")
async def orthanc(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedOrthanc]:
    folder = tmp_path_factory.mktemp("orthanc")
    async with run_orthanc(folder, dicom=DicomServer(find_free_port())) as running:
        yield running


@pytest.fixture
async def empty_orthanc(orthanc: EmbeddedOrthanc) -> EmbeddedOrthanc:
    return await emptied(orthanc)


async def emptied(orthanc: EmbeddedOrthanc) -> EmbeddedOrthanc:
    async with modality_client(orthanc) as http:
        if patients := (await http.get("/patients")).json():
            answer = await http.post("/tools/bulk-delete", json={"Resources": patients})
            answer.raise_for_status()
    return orthanc


@pytest.fixture
async def database_name(mongodb: EmbeddedMongod) -> AsyncIterator[str]:
    """The name of an empty database."""
    async with lent_database(mongodb) as name:
        yield name


@pytest.fixture
def settings(
    mongodb: EmbeddedMongod, database_name: str, empty_orthanc: EmbeddedOrthanc, tmp_path: Path
) -> Settings:
    """Settings of a server on the real stores, with a database of its own."""
    return settings_on(mongodb, empty_orthanc, tmp_path, mongodb_database=database_name)


@pytest.fixture
async def runtime(settings: Settings) -> AsyncIterator[Runtime]:
    async with open_runtime(settings) as opened:
        yield opened


@pytest.fixture(scope="module")
async def shared_server(
    mongodb: EmbeddedMongod, orthanc: EmbeddedOrthanc, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[RunningServer]:
    """One server for all tests of a module that add files and look at nothing else.

    Nothing else may open a database meanwhile: the documents of Beanie belong to the last one.
    """
    async with lent_database(mongodb) as name:
        folder = tmp_path_factory.mktemp("shared")
        settings = settings_on(mongodb, await emptied(orthanc), folder, mongodb_database=name)
        async with open_runtime(settings) as runtime, run_server(settings, runtime) as running:
            yield running


@pytest.fixture
async def server(settings: Settings, runtime: Runtime) -> AsyncIterator[RunningServer]:
    async with run_server(settings, runtime) as running:
        yield running
