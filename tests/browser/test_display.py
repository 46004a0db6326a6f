"""What the page shows of a file: proportions, windows, loss, age, earlier studies, order."""

import io
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from playwright.async_api import Page, expect
from pydicom import Dataset, dcmread
from pydicom.uid import generate_uid

from tests.browser.conftest import Tab
from tests.server_process import Served

pytestmark = pytest.mark.usefixtures("stored")

_PATIENT = "DISPLAY-1"


@pytest.fixture
async def stored(samples: Served, without_ct: bytes) -> AsyncIterator[None]:
    """Two studies of a patient: of the newer one four slices, sent and numbered out of order."""
    study, series = generate_uid(), generate_uid()
    for z in (20, 0, 30, 10):
        one = _ct(without_ct, study, series)
        one.ImagePositionPatient = [0, 0, z]
        one.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        one.InstanceNumber = 40 - z
        one.StudyDescription = f"Slice {z}"
        one.PixelSpacing = [2, 1]
        one.WindowCenter, one.WindowWidth = [40, 400], [80, 1800]
        one.WindowCenterWidthExplanation = ["BRAIN", "BONE"]
        one.LossyImageCompression, one.LossyImageCompressionRatio = "01", "12.5"
        one.PatientAge = "034Y"
        await _send(samples, one)
    earlier = _ct(without_ct, generate_uid(), generate_uid())
    earlier.StudyDate, earlier.StudyDescription = "20030102", "Earlier one"
    del earlier.PatientAge
    earlier.PatientBirthDate = "19700131"
    await _send(samples, earlier)
    yield
    found: dict[str, Any] = await samples.graphql(
        "query ($id: String!) { patient(patientID: $id) { id } }", id=_PATIENT
    )
    await samples.graphql(
        "mutation ($id: ID!) { deletePatient(id: $id) { deletedInstances } }",
        id=found["patient"]["id"],
    )


def _ct(content: bytes, study: str, series: str) -> Dataset:
    dataset = dcmread(io.BytesIO(content))
    dataset.PatientID = _PATIENT
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, series
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.StudyDate = "20040119"
    return dataset


async def _send(samples: Served, dataset: Dataset) -> None:
    content = io.BytesIO()
    dataset.save_as(content)
    response = await samples.http.post(
        "/api/dicom/upload", files={"file": ("ct.dcm", content.getvalue())}
    )
    assert response.json()["success"], response.text


async def _open_newer(tab: Tab) -> Page:
    page = await tab.open(f"#q={_PATIENT}")
    await page.locator("#studies tr", has_text="2004-01-19").locator("a").first.click()
    await expect(page.locator(".image")).to_be_visible()
    return page


async def test_pixels_have_their_proportions_in_the_patient(tab: Tab) -> None:
    page = await _open_newer(tab)
    picture = page.locator(".image")
    shape = await picture.evaluate("image => image.offsetHeight / image.offsetWidth")
    assert shape == pytest.approx(2, abs=0.02)
    stage = await page.locator(".stage").bounding_box()
    box = await picture.bounding_box()
    assert stage is not None
    assert box is not None
    assert box["height"] == pytest.approx(stage["height"], abs=1)
    await page.keyboard.press("f")
    await expect(picture).to_have_js_property("offsetWidth", 128)
    await expect(picture).to_have_js_property("offsetHeight", 256)


async def test_square_pixels_fill_the_stage(tab: Tab) -> None:
    page = await _open_newer(tab)
    await page.locator("#strip a.prior").click()
    await expect(page.locator(".corner-size")).to_have_text("128 \u00d7 128")
    picture = page.locator(".image")
    assert await picture.evaluate(
        "image => image.offsetWidth / image.offsetHeight"
    ) == pytest.approx(1)


async def test_the_windows_of_the_file_are_offered_by_name(tab: Tab) -> None:
    page = await _open_newer(tab)
    await expect(page.locator("#preset option")).to_have_text(
        [
            *("Default", "Full range", "Lung", "Bone", "Brain", "Soft tissue"),
            *("File: BRAIN", "File: BONE"),
        ]
    )


async def test_a_window_of_the_file_is_shown(tab: Tab) -> None:
    page = await _open_newer(tab)
    await page.locator("#preset").select_option(label="File: BONE")
    await expect(page.locator(".corner-window")).to_have_text("W 1800 C 400")
    await expect(page.locator(".image")).to_have_attribute("data-source", re.compile("w400x1800"))


async def test_loss_is_marked(tab: Tab) -> None:
    page = await _open_newer(tab)
    await expect(page.locator(".corner-size")).to_contain_text("Lossy compression 12.5:1")
    await expect(page.locator(".image")).to_have_attribute("aria-label", re.compile("lossy$"))
    await page.locator("#strip a.prior").click()
    await expect(page.locator(".corner-size")).to_have_text("128 \u00d7 128")
    await expect(page.locator(".corner-size")).not_to_contain_text("Lossy")


async def test_age_and_sex_of_the_patient_and_earlier_studies_are_shown(
    tab: Tab,
) -> None:
    page = await _open_newer(tab)
    title = page.locator("#study-header h1")
    await expect(title).to_contain_text("34 years")
    await expect(title).to_contain_text("other")
    prior = page.locator("#strip a.prior")
    await expect(prior).to_have_text(re.compile(r"2003-01-02.*Earlier one · CT"))
    await prior.click()
    await expect(title).to_contain_text("32 years")
    await expect(page.locator("#study-header .what")).to_contain_text("Earlier one")
    await expect(page.locator("#strip a.prior")).to_have_count(0)


async def test_slices_come_in_the_order_of_the_body(tab: Tab) -> None:
    page = await _open_newer(tab)
    numbers = []
    await page.keyboard.press("Home")
    for position in range(1, 5):
        await expect(page.locator("#position-text")).to_have_text(f"{position} / 4")
        await expect(page.locator(".image")).to_have_attribute(
            "aria-label", re.compile(f"Image {position} of 4")
        )
        numbers.append(await page.locator(".corner-series").inner_text())
        await page.keyboard.press("ArrowDown")
    assert [int(text.split("Instance ")[1]) for text in numbers] == [40, 30, 20, 10]
