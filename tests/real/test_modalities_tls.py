"""DICOM over TLS with DCMTK's programs: asked, fetched from, sent to, and let in.

DCMTK's archive speaks no TLS: it stands behind a relay, as such archives do in hospitals.
"""

import asyncio
import io
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from pydicom.data import get_testdata_file

from models import JobState
from models.modality import RetrieveMethod
from services.auth.roles import LOCAL_ADMIN
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import run_orthanc
from services.embedded.orthanc_configuration import DicomServer, TlsFiles
from services.embedded.ports import find_free_port
from services.ingest.service import SentFile
from services.modalities.declaration import check_declaration
from services.modalities.retrieve import new_retrieve
from services.modalities.send import new_send
from services.runtime import Runtime, open_runtime
from tests.certificates import Authority, server_context
from tests.databases import lent_database
from tests.real.jobs_stage import ended, running_jobs
from tests.real.modality_stage import running, running_archive, until_open
from tests.real.sync_stage import instance_bytes
from tests.real.sync_stage import running as following
from tests.servers import settings_on

_COMPRESSED = Path(str(get_testdata_file("MR_small_RLE.dcm")))


@dataclass(frozen=True, slots=True)
class Stage:
    """A server and its Orthanc that speak TLS, and the certificate of a peer."""

    runtime: Runtime
    port: int
    theirs: TlsFiles
    folder: Path

    async def declare(self, name: str, ae_title: str, port: int, *, use_tls: bool = True) -> None:
        await self.runtime.modalities.declare(
            check_declaration(
                name=name,
                ae_title=ae_title,
                host="127.0.0.1",
                port=port,
                allows=None,
                retrieve_method=RetrieveMethod.AUTO,
                timeout_seconds=5,
                description=None,
                use_tls=use_tls,
            )
        )

    async def stores(self, *options: str) -> bool:
        """Store a file in Orthanc as the modality WS does, by storescu."""
        process = await asyncio.create_subprocess_exec(
            "/usr/bin/storescu", *options, "-aet", "WS", "-aec", "ORTHANC", "-to", "5",
            "127.0.0.1", str(self.port), str(get_testdata_file("CT_small.dcm")),
            stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        return await process.wait() == 0


def peer_context(files: TlsFiles) -> ssl.SSLContext:
    """The side of a peer that connects."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.authorities)
    return context


def dcmtk(files: TlsFiles) -> list[str]:
    """Options of DCMTK's programs."""
    return ["+tls", str(files.key), str(files.certificate), "+cf", str(files.authorities)]


@asynccontextmanager
async def relay(
    target: int, *, server: ssl.SSLContext | None = None, client: ssl.SSLContext | None = None
) -> AsyncIterator[int]:
    """Pass connections on to a port, decrypted (`server`) or encrypted (`client`)."""

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target, ssl=client)
        await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer))

    listening = await asyncio.start_server(take, "127.0.0.1", 0, ssl=server)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()
        await listening.wait_closed()


@pytest.fixture(scope="module")
async def stage(
    mongodb: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Stage]:
    folder, authority, port = tmp_path_factory.mktemp("tls"), Authority.make(), find_free_port()
    ours = authority.issue(folder, "ours")
    dicom = DicomServer(port, requires_tls=True)
    async with (
        run_orthanc(folder / "orthanc", dicom=dicom, tls=ours) as orthanc,
        lent_database(mongodb) as name,
    ):
        settings = settings_on(
            mongodb, orthanc, folder, mongodb_database=name, dicom_tls_certificate=ours.certificate,
            dicom_tls_key=ours.key, dicom_tls_ca=ours.authorities,
        )  # fmt: skip
        async with open_runtime(settings) as runtime, running_jobs(runtime):
            yield Stage(runtime, port, authority.issue(folder, "theirs"), folder)


async def test_an_archive_is_tried_asked_and_fetched_from(stage: Stage) -> None:
    runtime = stage.runtime
    files = [instance_bytes(study, 1, number) for study in (1, 2) for number in (1, 2)]
    async with (
        relay(stage.port, client=peer_context(stage.theirs)) as our_port,
        running_archive(stage.folder / "archive", files, our_port=our_port) as archive,
        relay(archive.port, server=server_context(stage.theirs)) as port,
    ):
        await stage.declare("pacs", "ARCHIVE", port, use_tls=False)
        assert (await runtime.modalities.echo("pacs")).error is not None
        await stage.declare("pacs", "ARCHIVE", port)
        assert (await runtime.modalities.echo("pacs")).error is None
        uids = ["1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"]
        assert runtime.sync is not None
        async with following(runtime.sync):
            job = await runtime.jobs.start(new_retrieve("pacs", uids[:1], []), LOCAL_ADMIN)
            by_get = await ended(runtime, job.id)
            # Orthanc, where it sends to, takes encrypted connections only.
            await runtime.database["modalities"].update_one(
                {}, {"$set": {"retrieveMethod": "MOVE"}}
            )
            job = await runtime.jobs.start(new_retrieve("pacs", uids[1:], []), LOCAL_ADMIN)
            by_move = await ended(runtime, job.id)
    assert (by_get.state, by_get.completed) == (JobState.SUCCEEDED, 2), by_get
    assert (by_move.state, by_move.completed) == (JobState.SUCCEEDED, 2), by_move


async def test_studies_are_sent_as_they_are_and_by_orthanc(stage: Stage, tmp_path: Path) -> None:
    port = find_free_port()
    contents = [instance_bytes(3, 1, 1), await asyncio.to_thread(_COMPRESSED.read_bytes)]
    results = await stage.runtime.ingest.store(
        [SentFile("one", lambda content=content: io.BytesIO(content)) for content in contents]  # type: ignore[misc]  # mypy can't infer lambdas with defaults
    )
    command = ("/usr/bin/storescp", *dcmtk(stage.theirs), "-aet", "WS", "-od", str(tmp_path))
    async with running(*command, str(port)):
        await until_open(port)
        # Without TLS first: Orthanc gets every change.
        await stage.declare("ws", "WS", port, use_tls=False)
        await stage.declare("ws", "WS", port)
        ids = [str(result.study_id) for result in results]
        job = await stage.runtime.jobs.start(new_send("ws", ids, commit=False), LOCAL_ADMIN)
        sent = await ended(stage.runtime, job.id)
    assert (sent.state, sent.completed, sent.failed) == (JobState.SUCCEEDED, 2, 0), sent.failures


async def test_orthanc_lets_in_who_has_a_trusted_certificate(stage: Stage) -> None:
    await stage.declare("ws", "WS", 104)
    (stage.folder / "elsewhere").mkdir()
    stranger = Authority.make().issue(stage.folder / "elsewhere", "stranger")
    assert await stage.stores(*dcmtk(stage.theirs))
    assert not await stage.stores()
    assert not await stage.stores(*dcmtk(replace(stranger, authorities=stage.theirs.authorities)))
