"""Objects without pictures on the study page: a PDF in its frame, a report as text."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from playwright.async_api import expect

from tests.browser.conftest import CHROMIUM, Tab, opened_tab, run_chromium
from tests.patience import PATIENCE_SECONDS
from tests.real.dicomweb_stage import file_named
from tests.real.test_downloads import document, video
from tests.server_process import Served

_PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 200 200]>>endobj\n"
    b"trailer<</Root 1 0 R>>\n"
)


async def _store(samples: Served, *files: bytes) -> str:
    """Store files of one study; answers the id of the study."""
    for number, content in enumerate(files):
        answer = await samples.http.post(
            "/api/dicom/upload", files={"file": (f"{number}.dcm", content)}
        )
        assert answer.status_code == 200, answer.text
    uid = answer.json()["data"]["studyInstanceUID"]
    found: Any = await samples.graphql(
        "query ($uid: String!) { study(studyInstanceUID: $uid) { id } }", uid=uid
    )
    return str(found["study"]["id"])


async def _delete(samples: Served, study: str) -> None:
    await samples.graphql(
        "mutation ($id: ID!) { deleteStudy(id: $id) { deletedInstances } }", id=study
    )


@pytest.fixture
async def tab_with_viewer(samples: Served) -> AsyncIterator[Tab]:
    """A page of a browser that shows PDF documents."""
    async with run_chromium(CHROMIUM) as chromium, opened_tab(chromium, samples) as opened:
        yield opened


async def test_a_pdf_stands_in_a_frame_and_can_be_saved(
    tab_with_viewer: Tab, samples: Served
) -> None:
    study = await _store(samples, document(_PDF, 1))
    page = await tab_with_viewer.open(f"#study={study}")
    await expect(page.locator(".document h2")).to_have_text("Encapsulated PDF Storage")
    await expect(page.locator(".document iframe")).to_be_visible()
    async with asyncio.timeout(PATIENCE_SECONDS):
        # Chromium's viewer is a frame of its own inside ours.
        while not any(frame.url.startswith("chrome-extension:") for frame in page.frames):  # noqa: ASYNC110  # no event says so
            await asyncio.sleep(0.02)
    async with page.expect_download() as download:
        await page.get_by_role("button", name="Download DICOM file").click()
    path = await (await download.value).path()
    assert (await asyncio.to_thread(Path(path).read_bytes))[128:132] == b"DICM"
    await page.keyboard.press("Escape")
    await expect(page.locator("#worklist-view")).to_be_visible()
    await expect(page.locator(".document iframe")).to_have_count(0)
    await _delete(samples, study)


async def test_a_report_is_text(tab: Tab, samples: Served) -> None:
    study = await _store(samples, file_named("test-SR.dcm"))
    page = await tab.open(f"#study={study}")
    await expect(page.locator(".document h2")).to_have_text("Diagnosis")
    await expect(page.locator(".document .flags")).to_have_text(
        "COMPLETE · VERIFIED · by Jörg Riesmeier, Verifying Observer"
    )
    lines = page.locator(".document .lines > *")
    await expect(lines.nth(0)).to_have_text("Some UID: 1.2.3.4.5")
    await expect(lines.nth(5)).to_have_text("Diameter: 3.0 Length Unit")
    assert await page.locator(".document iframe").count() == 0
    await _delete(samples, study)


def _film(path: Path) -> bytes:
    """Make an MP4 of a second; in VP9, which needs no licence."""
    # The codes of codecs have four letters.
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"vp09"), 25, (64, 64))
    for number in range(25):
        writer.write(np.full((64, 64, 3), 10 * number, np.uint8))
    writer.release()
    return path.read_bytes()


async def test_a_video_is_played(tab: Tab, samples: Served, tmp_path: Path) -> None:
    film = await asyncio.to_thread(_film, tmp_path / "film.mp4")
    study = await _store(samples, video(film))
    page = await tab.open(f"#study={study}")
    player = page.locator(".document video")
    await expect(player).to_be_visible()
    await page.wait_for_function("() => document.querySelector('.document video').readyState >= 2")
    assert await player.evaluate("one => [one.duration, one.videoWidth]") == [1, 64]
    await expect(page.get_by_role("button", name="Save video")).to_be_visible()
    await _delete(samples, study)
