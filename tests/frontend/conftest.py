"""Folders with the examples of docs/front-ends, and the servers that they ask."""

import asyncio
import io
import os
import shutil
import tarfile
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pydicom
import pytest
from playwright.async_api import Browser
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from tests.browser.conftest import Tab, opened_tab, run_chromium
from tests.frontend.examples import read_examples
from tests.patience import PATIENCE_SECONDS
from tests.server_process import Served, serve, serve_guarded

_REPOSITORY = Path(__file__).parents[2]
PACKAGES = Path(__file__).parent / "node_modules"


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
            async with asyncio.timeout(PATIENCE_SECONDS):
                yield process
        finally:
            if process.returncode is None:
                process.kill()
                await process.communicate()


@pytest.fixture(scope="package")
async def client_package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of clients/js as npm would install it: packed, and unpacked again."""
    folder = tmp_path_factory.mktemp("client")
    for part in ("clients/js", "graph/web/static/client"):
        ignored = shutil.ignore_patterns("node_modules", "types", "*.tgz")
        shutil.copytree(_REPOSITORY / part, folder / part, ignore=ignored)
    process = await asyncio.create_subprocess_exec(
        *("npm", "pack", "--silent", "--offline"),
        cwd=folder / "clients/js",
        env=os.environ | {"PATH": f"{PACKAGES}/.bin{os.pathsep}{os.environ['PATH']}"},
        stdout=PIPE,
        stderr=PIPE,
    )
    async with asyncio.timeout(PATIENCE_SECONDS):
        output, complaints = await process.communicate()
    assert process.returncode == 0, (output + complaints).decode()
    (packed,) = (folder / "clients/js").glob("*.tgz")
    with tarfile.open(packed) as archive:
        archive.extractall(folder, filter="data")
    return folder / "package"


@pytest.fixture(scope="package")
async def served(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server with the sample studies, open to everybody on this machine."""
    async with serve(tmp_path_factory.mktemp("front-ends")) as server:
        yield server


@pytest.fixture(scope="package")
async def guarded(
    served: Served, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Served, str]]:
    """A server on the same stores that wants tokens, and a viewer's token."""
    async with serve_guarded(served, tmp_path_factory.mktemp("front-ends-guarded")) as opened:
        yield opened


@pytest.fixture(scope="package")
async def browser() -> AsyncIterator[Browser]:
    """A browser."""
    async with run_chromium() as chromium:
        yield chromium


@pytest.fixture
async def tab(browser: Browser, served: Served) -> AsyncIterator[Tab]:
    """A page of a session of its own, on the open server."""
    async with opened_tab(browser, served) as opened:
        yield opened


@pytest.fixture
def workshop(served: Served, tmp_path: Path) -> Workshop:
    """The examples, for the open server."""
    return furnish(tmp_path, served)


@pytest.fixture
def guarded_workshop(guarded: tuple[Served, str], tmp_path: Path) -> Workshop:
    """The examples, for the server that wants tokens."""
    return furnish(tmp_path, guarded[0])


@pytest.fixture
def project(served: Served, client_package: Path, tmp_path: Path) -> Workshop:
    """The examples and our package of npm, for the open server."""
    workshop = furnish(tmp_path, served)
    packages = workshop.folder / "node_modules"
    packages.unlink()
    packages.mkdir()
    for package in PACKAGES.iterdir():
        (packages / package.name).symlink_to(package)
    shutil.copytree(client_package, packages / "orthanc-graphql-client")
    return workshop


def furnish(folder: Path, server: Served) -> Workshop:
    """Put into a folder what the page says that a front end has."""
    if not PACKAGES.is_dir():
        pytest.fail("The packages of npm are missing: run tests/frontend/install-packages.sh")
    read_examples().write(folder, urlsplit(server.url).netloc)
    (folder / "node_modules").symlink_to(PACKAGES)
    (folder / "schema.graphql").symlink_to(_REPOSITORY / "graph" / "schema.graphql")
    (folder / "image.dcm").write_bytes(new_image())
    return Workshop(folder)


def new_image(**attributes: str) -> bytes:
    """Make a CT image of a study of its own, with these attributes by keywords."""
    dataset = pydicom.dcmread(str(get_testdata_file("CT_small.dcm")))
    dataset.StudyInstanceUID = generate_uid()
    dataset.SeriesInstanceUID = generate_uid()
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
    written = io.BytesIO()
    dataset.save_as(written)
    return written.getvalue()
