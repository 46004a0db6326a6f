"""Two patients whose studies, series and instances carry the same UIDs."""

import json
from typing import Any

import pytest
from playwright.async_api import Page, expect

from services.frames.signing import FrameUrlSigner, load_or_create_keys
from tests.browser.conftest import Tab
from tests.server_process import Served

_UPLOAD = """mutation ($files: [Upload!]!, $patientID: String) {
  uploadDicom(files: $files, patientID: $patientID) {
    results { status instance { orthancInstanceId } }
  }
}"""
_PATIENTS = ["TWIN-A", "TWIN-B"]
_BOTH = "#q=TWIN-"


@pytest.fixture
async def twins(samples: Served, without_ct: bytes) -> dict[str, str]:
    """Orthanc's ID of the one instance of each of two patients, by their patient ID."""
    return {patient: await _upload(samples, without_ct, patient) for patient in _PATIENTS}


async def _upload(samples: Served, content: bytes, patient_id: str) -> str:
    variables = {"files": [None], "patientID": patient_id}
    response = await samples.http.post(
        "/graphql",
        data={
            "operations": json.dumps({"query": _UPLOAD, "variables": variables}),
            "map": '{"0": ["variables.files.0"]}',
        },
        files={"0": ("ct.dcm", content)},
        headers={"GraphQL-Preflight": "1"},
    )
    result: dict[str, Any] = response.json()["data"]["uploadDicom"]["results"][0]
    assert result["status"] == "STORED", result
    return str(result["instance"]["orthancInstanceId"])


async def test_each_of_two_patients_has_a_row_a_study_and_pictures(
    tab: Tab, samples: Served, twins: dict[str, str]
) -> None:
    signer = FrameUrlSigner(load_or_create_keys(samples.data_dir))
    for patient_id, instance_id in twins.items():
        page = await tab.open(_BOTH)
        await expect(page.locator("#studies tr")).to_have_count(2)
        await page.locator("#studies tr", has_text=patient_id).locator("a").click()
        await _expect_patient(page, patient_id)
        assert await _instance_shown(page, signer, samples) == instance_id
        await page.reload()
        await _expect_patient(page, patient_id)
        assert await _instance_shown(page, signer, samples) == instance_id


async def test_the_header_is_that_of_the_picture(tab: Tab, twins: dict[str, str]) -> None:
    for patient_id in twins:
        page = await tab.open(_BOTH)
        await page.locator("#studies tr", has_text=patient_id).locator("a").click()
        await expect(page.locator(".image")).to_be_visible()
        await page.keyboard.press("t")
        line = page.locator("#tags tbody tr", has_text="(0010,0020)").first
        await expect(line).to_contain_text(patient_id)
        await page.keyboard.press("t")


async def _expect_patient(page: Page, patient_id: str) -> None:
    await expect(page.locator("#study-header h1")).to_contain_text(patient_id)
    await expect(page.locator(".corner-patient")).to_contain_text(patient_id)
    await expect(page.locator(".image")).to_be_visible()


async def _instance_shown(page: Page, signer: FrameUrlSigner, samples: Served) -> str:
    source = await page.locator(".image").get_attribute("data-source") or ""
    until = int(source.split("/v2/")[1].split(".")[1], 16)
    path = source.removeprefix(samples.url).encode()
    return signer.verify_frame(path, now=until - 60).instance_id
