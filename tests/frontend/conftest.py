"""Folders with the examples of docs/front-ends.md, and the servers that they ask."""

import asyncio
import io
import os
import signal
import sys
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from services.access import Role
from services.credentials.token_file import changed_tokens
from services.credentials.tokens import issue_token
from services.embedded.data_dir import read_running_stores
from services.frames.keys import generate_key
from tests.frontend.examples import read_examples

_REPOSITORY = Path(__file__).parents[2]
_PACKAGES = Path(__file__).parent / "node_modules"
_PATIENCE_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Served:
    """A server in a process of its own; `url` without a slash at its end."""

    url: str
    data_dir: Path


@dataclass(frozen=True, slots=True)
class Workshop:
    """A folder with every example, npm's packages and `image.dcm`, which nobody has stored."""

    folder: Path

    async def run(self, *command: str, **environment: str) -> str:
        """Run a command that must succeed without a complaint; answers what it prints."""
        async with self.started(*command, **environment) as process:
            output, complaints = await process.communicate()
        assert (process.returncode, complaints.decode()) == (0, ""), output.decode()
        return output.decode()

    @asynccontextmanager
    async def started(
        self, *command: str, **environment: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start a command, which has ended when the context does."""
        inherited = {"PATH": os.environ["PATH"], "NO_COLOR": "1", "CI": "1"}
        process = await asyncio.create_subprocess_exec(
            *command, cwd=self.folder, env=inherited | environment, stdout=PIPE, stderr=PIPE
        )
        try:
            async with asyncio.timeout(_PATIENCE_SECONDS):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


@pytest.fixture(scope="session")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server with the sample studies, open to everybody on this machine."""
    async with _serve(tmp_path_factory.mktemp("front-ends")) as server:
        yield server


@pytest.fixture(scope="session")
async def guarded(
    served: Served, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Served, str]]:
    """A server on the same stores that wants tokens, and a viewer's token."""
    data_dir = tmp_path_factory.mktemp("front-ends-guarded")
    running = await asyncio.to_thread(read_running_stores, served.data_dir)
    assert running is not None
    with changed_tokens(data_dir / "tokens.json") as change:
        change.tokens, token = issue_token(
            change.tokens, name="front end", role=Role.VIEWER, now=datetime.now(UTC)
        )
    stores = running.stores
    environment = {
        "MONGODB_URL": stores.mongodb_url or "",
        "ORTHANC_URL": stores.orthanc_url or "",
        "ORTHANC_USERNAME": stores.orthanc_username,
        "ORTHANC_PASSWORD": stores.orthanc_password,
        "FRAME_URL_KEYS": generate_key(),
    }
    async with _serve(data_dir, environment) as server:
        yield server, token


@pytest.fixture
def workshop(served: Served, tmp_path: Path) -> Workshop:
    """The examples, for the open server."""
    return furnish(tmp_path, served)


@pytest.fixture
def guarded_workshop(guarded: tuple[Served, str], tmp_path: Path) -> Workshop:
    """The examples, for the server that wants tokens."""
    return furnish(tmp_path, guarded[0])


def furnish(folder: Path, server: Served) -> Workshop:
    """Put into a folder what the page says that a front end has."""
    if not _PACKAGES.is_dir():
        pytest.fail("The packages of npm are missing: run tests/frontend/install-packages.sh")
    read_examples().write(folder, urlsplit(server.url).netloc)
    (folder / "node_modules").symlink_to(_PACKAGES)
    (folder / "schema.graphql").symlink_to(_REPOSITORY / "graph" / "schema.graphql")
    (folder / "image.dcm").write_bytes(new_image())
    return Workshop(folder)


def new_image() -> bytes:
    """Make a CT image of a study of its own."""
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    written = io.BytesIO()
    dataset.save_as(written)
    return written.getvalue()


@asynccontextmanager
async def _serve(
    data_dir: Path, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Served]:
    with (data_dir / "serve.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "graph.cli"),
            *("serve", "--port", "0", "--data-dir", str(data_dir)),
            cwd=data_dir,
            env={"PATH": os.environ["PATH"], **(environment or {})},
            stdout=PIPE,
            stderr=log,
        )
    try:
        async with asyncio.timeout(_PATIENCE_SECONDS):
            url = await _announced_url(process)
        yield Served(url, data_dir)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.communicate()


async def _announced_url(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    async for line in process.stdout:
        if b"Study browser" in line:
            return line.split()[-1].decode().rstrip("/")
    raise AssertionError("The server ended before it was ready: see serve.log.")
