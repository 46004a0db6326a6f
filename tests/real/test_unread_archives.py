"""Archives that are downloaded and not read take nothing from anybody else, and are cut."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from io import BytesIO
from pathlib import Path

import httpx
import pydicom
from pydicom.uid import generate_uid

from services.settings import Settings
from tests.patience import PATIENCE_SECONDS
from tests.real.bystander import Guarded, nobody_waits, serve_with_tokens
from tests.real.sync_stage import eventually, instance_bytes

DOWNLOADS = 32
SIDE = 2048
"""Pixels of a square image: 8 MiB that can't be compressed, more than all buffers on the way. More
would only let Orthanc compress for longer."""

CUT = "its client does not read the answer"


def incompressible() -> bytes:
    """Make the file of a study whose archive is as large."""
    dataset = pydicom.dcmread(BytesIO(instance_bytes(1, 1, 1)))
    dataset.Rows = dataset.Columns = SIDE
    dataset.PixelData = os.urandom(SIDE * SIDE * 2)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    written = BytesIO()
    dataset.save_as(written)
    return written.getvalue()


@asynccontextmanager
async def unread(url: httpx.URL) -> AsyncIterator[socket.socket]:
    """Ask for an archive through a connection that takes 4 KiB."""
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, (url.host, url.port))
        await loop.sock_sendall(client, f"GET {url.path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        yield client


async def status_of(client: socket.socket) -> int:
    line = await asyncio.get_running_loop().sock_recv(client, 12)
    return int(line.removeprefix(b"HTTP/1.1 "))


async def archive_url(guarded: Guarded) -> httpx.URL:
    """Store a study; answer the URL of its archive."""
    async with guarded.client(guarded.attacker) as http:
        file = {"file": ("a.dcm", incompressible())}
        assert (await http.post("/api/dicom/upload", files=file)).status_code == 200
        study_uid = pydicom.dcmread(BytesIO(instance_bytes(1, 1, 1))).StudyInstanceUID
        query = f'{{ study(studyInstanceUID: "{study_uid}") {{ archiveUrl }} }}'
        answer = await http.post("/graphql", json={"query": query})
    return httpx.URL(answer.json()["data"]["study"]["archiveUrl"])


async def test_archives_that_are_not_read_delay_nobody_and_are_cut(settings: Settings) -> None:
    async with serve_with_tokens(settings, ARCHIVES_PER_CLIENT=str(DOWNLOADS)) as guarded:
        url = await archive_url(guarded)

        async def count_cuts() -> int:
            return (await asyncio.to_thread(Path(guarded.log).read_text)).count(CUT)

        async def download_and_not_read(_attempt: int) -> None:
            before = await count_cuts()
            async with AsyncExitStack() as opened:
                clients = [await opened.enter_async_context(unread(url)) for _ in range(DOWNLOADS)]
                async with asyncio.timeout(4 * PATIENCE_SECONDS):
                    statuses = await asyncio.gather(*map(status_of, clients))
                # Some began; the others waited for a connection to Orthanc of those, and are told.
                assert statuses.count(200) >= 4
                assert set(statuses) <= {200, 503}

                async def are_cut() -> bool:
                    return await count_cuts() - before == statuses.count(200)

                await eventually(are_cut, within_seconds=2 * PATIENCE_SECONDS)

        await nobody_waits(guarded, download_and_not_read, most_mebibytes=150)
