"""Slow readers of archives never take the connections of anything else: a real socket server."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from services.errors import DownloadsBusy
from services.orthanc import client as orthanc_client
from services.orthanc.capacity import WHOLE_CAPACITY
from services.orthanc.client import OrthancClient, open_orthanc

ID = "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af"
SYSTEM = b'{"Version": "1.12.11"}'


async def _converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer `/system` at once, and anything else with a body that goes on without end."""
    try:
        while head := await reader.readuntil(b"\r\n\r\n"):
            if head.startswith(b"GET /system"):
                length = b"Content-Length: %d\r\n\r\n" % len(SYSTEM)
                writer.write(b"HTTP/1.1 200 OK\r\n" + length + SYSTEM)
                continue
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nbeginning")
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


@asynccontextmanager
async def opened() -> AsyncIterator[OrthancClient]:
    server = await asyncio.start_server(_converse, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with (
        server,
        open_orthanc(url, "", "", frame_seconds=5, capacity=WHOLE_CAPACITY) as orthanc,
    ):
        yield orthanc.client


@pytest.mark.no_cover
async def test_readers_that_take_nothing_keep_nobody_else_from_orthanc(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(orthanc_client, "_DOWNLOAD_SLOT_SECONDS", 0.05)
    async with opened() as client, AsyncExitStack() as readers, asyncio.timeout(30):
        for _ in range(WHOLE_CAPACITY.downloads // 2):
            await readers.enter_async_context(client.study_archive(ID))
            await readers.enter_async_context(client.download(ID))
        for download in (client.study_archive, client.download):
            with pytest.raises(DownloadsBusy):
                async with download(ID):
                    pass
        # 64 at once: more than all connections that downloads could have taken.
        versions = await asyncio.gather(*(client.system() for _ in range(64)))
        assert {system.version for system in versions} == {"1.12.11"}
        async with client.instance_file(ID) as chunks:
            assert await anext(chunks) == b"beginning"
    async with opened() as client, client.study_archive(ID) as chunks:
        assert await anext(chunks) == b"beginning"
