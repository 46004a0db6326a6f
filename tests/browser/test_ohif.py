"""OHIF's built viewer opens our studies, with a token and nothing else to ask.

The screenshots of docs/viewers.md are written where they are missing: `rm docs/ohif-*.png` first.
"""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from playwright.async_api import Browser, Page, Request, Response, async_playwright

from services.auth.roles import Role
from tests.browser.ohif import FLAGS, SHOWS_PIXELS, app_config, ohif_folder, serving_ohif
from tests.real.dicomweb_stage import ROOT, file_named, made, uid
from tests.server_process import serve
from tests.servers import answered
from tests.tokens import write_tokens_file

_DOCS = Path(__file__).parents[2] / "docs"
_LARGEST = 250_000
"""Bytes of a screenshot: what the documentation may cost."""

_PATIENCE_MS = 90_000
"""SwiftShader draws in software, and the machine may be busy."""


def _ct_stack() -> list[bytes]:
    return [
        made(
            PatientID="CT",
            StudyInstanceUID=uid("CT"),
            SeriesInstanceUID=uid("CT", "series"),
            SOPInstanceUID=uid("CT", number),
            InstanceNumber=number + 1,
            ImagePositionPatient=[-158.13, -179.03, -75.7 + 5 * number],
        )
        for number in range(12)
    ]


def _report_beside_images() -> list[bytes]:
    report = file_named("reportsi.dcm")
    header = pydicom.dcmread(io.BytesIO(report))
    image = made(
        PatientID=header.PatientID,
        StudyInstanceUID=header.StudyInstanceUID,
        SeriesInstanceUID=uid("SR", "series"),
        SOPInstanceUID=uid("SR", "image"),
    )
    return [image, report]


_STUDIES = {
    "ct": _ct_stack,
    "cr": lambda: [file_named("RG3_J2KR.dcm")],
    "cine": lambda: [file_named("color3d_jpeg_baseline.dcm")],
    "enhanced-mr": lambda: [file_named("emri_small.dcm")],
    "report": _report_beside_images,
}


@dataclass(frozen=True, slots=True)
class Viewer:
    """OHIF beside our server: addresses without a slash at the end."""

    ohif: str
    server: str
    reader: str
    uploader: str

    async def store(self, files: list[bytes]) -> str:
        """Store files by STOW-RS and return the StudyInstanceUID."""
        boundary = b"xxBOUNDARYxx"
        head = b"--" + boundary + b"\r\nContent-Type: application/dicom\r\n\r\n"
        body = b"".join(head + file + b"\r\n" for file in files) + b"--" + boundary + b"--\r\n"
        headers = {
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=xxBOUNDARYxx',
            "Authorization": f"Bearer {self.uploader}",
        }
        async with httpx.AsyncClient(base_url=self.server, timeout=60, trust_env=False) as http:
            answer = await http.post(f"{ROOT}/studies", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        address: str = answer.json()["00081190"]["Value"][0]
        return address.rpartition("/")[2]

    async def share(self, study_uid: str) -> tuple[str, str]:
        """Share a study; return the address of the share, and OHIF's for it."""
        headers = {"Authorization": f"Bearer {self.uploader}"}
        async with httpx.AsyncClient(
            base_url=self.server, timeout=60, trust_env=False, headers=headers
        ) as http:
            found: Any = await answered(
                http,
                "query($uid: String!) { study(studyInstanceUID: $uid) { id } }",
                {"uid": study_uid},
            )
            expires_at = (datetime.now(UTC) + timedelta(days=1)).isoformat()
            share = {"name": "A", "studyIds": [found["study"]["id"]], "expiresAt": expires_at}
            created: Any = await answered(
                http,
                "mutation($input: CreateShareInput!) { createShare(input: $input) {"
                "  url viewerUrl } }",
                {"input": share},
            )
        share_address: str = created["createShare"]["url"]
        return share_address.rstrip("/"), created["createShare"]["viewerUrl"]


@pytest.fixture(scope="module")
async def viewer(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Viewer]:
    built = await asyncio.get_running_loop().run_in_executor(None, ohif_folder)
    if isinstance(built, str):
        pytest.skip(built)
    folder = tmp_path_factory.mktemp("ohif")
    tokens = write_tokens_file(
        folder / "tokens.json", {"reader": Role.VIEWER, "uploader": Role.UPLOADER}
    )
    config: list[str] = []
    with serving_ohif(built, config) as ohif:
        environment = {
            "CORS_ALLOWED_ORIGINS": ohif,
            "LOAD_SAMPLES": "false",
            "OHIF_URL": ohif,
        }
        async with serve(folder, environment) as served:
            config.append(app_config(f"{served.url}{ROOT}"))
            yield Viewer(ohif, served.url, tokens["reader"], tokens["uploader"])


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with async_playwright() as playwright:
        chromium = await playwright.chromium.launch(executable_path="/usr/bin/chromium", args=FLAGS)
        yield chromium
        await chromium.close()


@asynccontextmanager
async def opened(viewer: Viewer, browser: Browser) -> AsyncIterator[Page]:
    """A page that may ask the two servers and nobody else."""
    context = await browser.new_context(viewport={"width": 1000, "height": 620})
    await context.add_init_script("localStorage.shownTours = '[\"basicViewerTour\"]'")
    foreign: list[str] = []

    def note(request: Request) -> None:
        known = (viewer.ohif, viewer.server, "data:", "blob:")
        if not request.url.startswith(known):
            foreign.append(request.url)

    context.on("request", note)
    page = await context.new_page()
    page.set_default_timeout(_PATIENCE_MS)
    try:
        yield page
    finally:
        await context.close()
    assert foreign == []


@pytest.mark.parametrize("name", _STUDIES)
async def test_ohif_shows_a_study(viewer: Viewer, browser: Browser, name: str) -> None:
    study_uid = await viewer.store(_STUDIES[name]())
    async with opened(viewer, browser) as page:
        query = f"StudyInstanceUIDs={study_uid}&token={viewer.reader}"
        await page.goto(f"{viewer.ohif}/viewer?{query}")
        await page.wait_for_function(SHOWS_PIXELS)
        await _keep_screenshot(page, name)


async def test_ohif_shows_a_shared_study_and_nothing_else(viewer: Viewer, browser: Browser) -> None:
    study_uid = await viewer.store(_ct_stack())
    own = {"SeriesInstanceUID": uid("prior", 1), "SOPInstanceUID": uid("prior", 2)}
    await viewer.store([made(PatientID="CT", StudyInstanceUID=uid("prior"), **own)])
    address, viewer_url = await viewer.share(study_uid)
    assert viewer_url.startswith(viewer.ohif)
    async with opened(viewer, browser) as page:
        searched: list[Any] = []

        async def note(response: Response) -> None:
            if response.url.startswith(f"{address}/dicomweb/studies?"):
                searched.append(await response.json())

        page.on("response", note)
        await page.goto(viewer_url)
        await page.wait_for_function(SHOWS_PIXELS)
        await page.wait_for_load_state("networkidle")
    found = {model["0020000D"]["Value"][0] for models in searched for model in models}
    assert found == {study_uid}


async def _keep_screenshot(page: Page, name: str) -> None:
    path = _DOCS / f"ohif-{name}.png"
    # Thumbnails and the worklist of the study come after the first image.
    await page.wait_for_load_state("networkidle")
    picture = await page.screenshot()
    if not path.exists():
        path.write_bytes(picture)
    assert path.stat().st_size < _LARGEST
