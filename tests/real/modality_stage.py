"""Real modalities: dcmqrscp of dcmtk as an archive, storescp as a workstation."""

import asyncio
import os
import signal
from asyncio.subprocess import DEVNULL, Process
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import tests.dicom_peers  # noqa: F401  # pynetdicom leaves sockets open without it
from services.embedded.ports import LOOPBACK, find_free_port
from tests.patience import PATIENCE_SECONDS

CONFIGURATION = """
NetworkTCPPort  = {port}
MaxPDUSize      = 16384
MaxAssociations = 16
HostTable BEGIN
ours = (ORTHANC, 127.0.0.1, {our_port})
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
ARCHIVE  {folder}  RW (1000, 1024mb)  ANY
AETable END
"""

_DCMTK = "/usr/bin"
"""pynetdicom installs programs of the same names."""


@dataclass(frozen=True, slots=True)
class Archive:
    """An archive that knows this server as ORTHANC."""

    port: int
    ae_title: str = "ARCHIVE"
    host: str = LOOPBACK


@asynccontextmanager
async def running(*command: str) -> AsyncIterator[Process]:
    """Run a program, and the processes that it starts, while the block runs."""
    process = await asyncio.create_subprocess_exec(
        *command, stdout=DEVNULL, stderr=DEVNULL, start_new_session=True
    )
    try:
        yield process
    finally:
        # dcmqrscp has a process for each association.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        await process.wait()


async def until_open(port: int) -> None:
    """Wait until something listens."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while True:
            try:
                _, writer = await asyncio.open_connection(LOOPBACK, port)
            except OSError:
                await asyncio.sleep(0.02)
                continue
            writer.close()
            await writer.wait_closed()
            return


@dataclass(frozen=True, slots=True)
class StoppedArchive:
    """An archive with its files, which can be run again and again."""

    archive: Archive
    configuration: Path

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Process]:
        """Run it; it answers when entered."""
        port = str(self.archive.port)
        command = (f"{_DCMTK}/dcmqrscp", "-c", str(self.configuration), port)
        async with running(*command) as process:
            await until_open(self.archive.port)
            yield process


async def make_archive(
    folder: Path, files: Iterable[bytes] = (), *, our_port: int = 1
) -> StoppedArchive:
    """Make an archive of some files; `our_port` is where it sends what ORTHANC wants moved."""
    files_folder = folder / "files"
    files_folder.mkdir(parents=True)
    paths = []
    for number, content in enumerate(files):
        paths.append(files_folder / f"{number}.dcm")
        paths[-1].write_bytes(content)
    if paths:
        index = await asyncio.create_subprocess_exec(
            f"{_DCMTK}/dcmqridx", str(files_folder), *map(str, paths)
        )
        assert await index.wait() == 0
    port = find_free_port()
    configuration = folder / "dcmqrscp.cfg"
    configuration.write_text(
        CONFIGURATION.format(port=port, folder=files_folder, our_port=our_port), encoding="ascii"
    )
    return StoppedArchive(Archive(port), configuration)


@asynccontextmanager
async def running_archive(
    folder: Path, files: Iterable[bytes] = (), *, our_port: int = 1
) -> AsyncIterator[Archive]:
    """Run dcmqrscp on some files; arguments are those of `make_archive`."""
    made = await make_archive(folder, files, our_port=our_port)
    async with made.running():
        yield made.archive
