"""A real browser on a real server: closed to every other host, and every console error counts."""

import asyncio
import io
import shutil
import zipfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import (
    Browser,
    BrowserContext,
    FilePayload,
    Page,
    Request,
    ViewportSize,
    async_playwright,
    expect,
)
from pydicom.data import get_testdata_file

from tests.browser.phantoms import CORONAL, Phantom
from tests.server_process import Served, serve, serve_guarded, until_in_step

Scheme = Literal["dark", "light"]

CHROMIUM = "/usr/bin/chromium"
_SHELL = shutil.which("chromium-headless-shell") or CHROMIUM
"""Chromium without windows and PDF viewer: it opens a page for a sixth of the work."""

_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    # No name leads anywhere: whoever is asked for shows up as a failure too.
    "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1",
]
_CT_STUDY = "1.3.6.1.4.1.5962.1.2.1.20040119072730.12322"
"""StudyInstanceUID of pydicom's CT_small.dcm."""
_LONG_NAME = "Coronal reformatted from the thin slices of the portal venous ph"
"""As long as a SeriesDescription may be: 64 characters."""
_PATIENCE_MS = 30_000
"""For actions and expectations alike; on a busy machine the 5 s that are usual are too short."""
_WIDE: ViewportSize = {"width": 1280, "height": 800}


@dataclass
class Tab:
    """A page of its own session.

    Attributes:
        url: Of the server, with a slash at the end.
        expected_errors: Parts of console messages that belong to what the test does.
    """

    page: Page
    context: BrowserContext
    url: str
    console_errors: list[str] = field(default_factory=list)
    foreign_requests: list[str] = field(default_factory=list)
    expected_errors: list[str] = field(default_factory=list)

    async def open(self, address: str = "") -> Page:
        """Go to an address below the server's and answer the page."""
        await self.page.goto(self.url + address)
        return self.page

    def check(self) -> None:
        """Fail when the page said something wrong or asked somebody else."""
        unexpected = [
            text
            for text in self.console_errors
            if not any(part in text for part in self.expected_errors)
        ]
        assert (unexpected, self.foreign_requests) == ([], [])


def sent_file(name: str, content: bytes) -> FilePayload:
    """Make what a person chooses in the file dialog."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": content}


@pytest.fixture(scope="package")
async def samples(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Served]:
    """A server with its own stores, which hold the sample studies; open to everybody."""
    async with serve(tmp_path_factory.mktemp("samples")) as served:
        yield served


@pytest.fixture
async def tidied(samples: Served) -> AsyncIterator[None]:
    """Take the CT out again that a test may have stored, under any patient.

    Pages ask for this, so that none is still there to miss the pictures of what goes.
    """
    yield
    found: dict[str, Any] = await samples.graphql(
        "query ($uids: [String!]) { studies(filter: {studyInstanceUIDs: $uids}) { nodes { id } } }",
        uids=[_CT_STUDY],
    )
    for study in found["studies"]["nodes"]:
        await samples.graphql(
            "mutation ($id: ID!) { deleteStudy(id: $id) { deletedInstances } }", id=study["id"]
        )


@pytest.fixture(scope="module")
async def phantoms(samples: Served) -> AsyncIterator[tuple[Phantom, Phantom]]:
    """A study of two series, axial and coronal, and an earlier one of the same patient."""
    newer = Phantom.of("PHANTOM-1")
    earlier = Phantom.of(
        "PHANTOM-1", study_date="20210301", study_description="Earlier CT", accession_number="A-0"
    )
    await send(samples, *newer.series(1, "Axial 5 mm"))
    await send(samples, *newer.series(2, _LONG_NAME, orientation=CORONAL))
    await send(samples, *earlier.series(1, "Axial 5 mm"))
    yield newer, earlier
    found: dict[str, Any] = await samples.graphql(
        "query ($id: String!) { patient(patientID: $id) { id } }", id=newer.patient_id
    )
    await samples.graphql(
        "mutation ($id: ID!) { deletePatient(id: $id) { deletedInstances } }",
        id=found["patient"]["id"],
    )


async def send(samples: Served, *files: bytes) -> None:
    """Store files by one upload."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number, content in enumerate(files):
            archive.writestr(f"{number}.dcm", content)
    response = await samples.http.post(
        "/api/dicom/upload", files={"file": ("all.zip", packed.getvalue())}
    )
    assert response.status_code == 200, response.text


@pytest.fixture
async def without_ct(tidied: None) -> bytes:
    """The bytes of a CT file that is not stored."""
    del tidied
    path = get_testdata_file("CT_small.dcm", download=False)
    assert isinstance(path, str)
    return await asyncio.to_thread(Path(path).read_bytes)


@pytest.fixture(scope="package")
async def guarded(
    samples: Served, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Served, str]]:
    """A second server on the same stores that asks for tokens, and a viewer's token."""
    async with serve_guarded(samples, tmp_path_factory.mktemp("guarded")) as opened:
        yield opened


@asynccontextmanager
async def run_chromium(executable: str = _SHELL) -> AsyncIterator[Browser]:
    """Run a browser."""
    expect.set_options(timeout=_PATIENCE_MS)
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path=executable, args=_FLAGS)
        yield chromium
        await chromium.close()


@pytest.fixture(scope="package")
async def browser() -> AsyncIterator[Browser]:
    async with run_chromium() as chromium:
        yield chromium


@pytest.fixture
async def tab(browser: Browser, samples: Served, tidied: None) -> AsyncIterator[Tab]:
    del tidied
    async with opened_tab(browser, samples) as opened:
        yield opened


@pytest.fixture
async def guarded_tab(
    browser: Browser, samples: Served, guarded: tuple[Served, str], tidied: None
) -> AsyncIterator[tuple[Tab, str]]:
    """A page of the server that asks for tokens, and a viewer's token."""
    del tidied
    served, token = guarded
    # What an earlier test removed by the other server would be listed here for a moment more.
    await until_in_step(samples, served, token)
    async with opened_tab(browser, served) as opened:
        # Being refused is what these tests are about; browsers write it to their console.
        opened.expected_errors += ["401", "403"]
        yield opened, token


@asynccontextmanager
async def opened_tab(
    browser: Browser,
    server: Served,
    **options: Any,  # of `Browser.new_context`
) -> AsyncIterator[Tab]:
    """Open a page of its own session, dark and wide unless the options say otherwise."""
    usual = {"viewport": _WIDE, "color_scheme": "dark", "reduced_motion": "reduce"}
    context = await browser.new_context(**(usual | options))
    page = await context.new_page()
    page.set_default_timeout(_PATIENCE_MS)
    tab = Tab(page, context, f"{server.url}/")

    def note_foreign(request: Request) -> None:
        # Chromium's own PDF viewer is a page of the browser.
        if not request.url.startswith((tab.url, "data:", "blob:", "chrome:", "chrome-extension:")):
            tab.foreign_requests.append(request.url)

    context.on("request", note_foreign)
    page.on("pageerror", lambda error: tab.console_errors.append(str(error)))
    page.on(
        "console",
        lambda said: tab.console_errors.append(said.text) if said.type == "error" else None,
    )
    yield tab
    await context.close()
    tab.check()
