"""The DICOM network on the page: another archive, jobs, planned examinations; by role."""

import zipfile
from collections.abc import AsyncIterator
from datetime import date

import pytest
from playwright.async_api import expect

from tests.browser.conftest import Tab, send
from tests.browser.phantoms import Phantom
from tests.browser.test_accessibility import findings
from tests.real.modality_stage import Archive, running_archive
from tests.server_process import Served

_REMOTE = Phantom.of("PHANTOM-REMOTE", study_description="Fetched CT", accession_number="R-1")

_DECLARE = """mutation ($aeTitle: String!, $host: String!, $port: Int!) {
  declareModality(name: "archive", aeTitle: $aeTitle, host: $host, port: $port,
                  allows: [ECHO, FIND, GET, STORE], retrieveMethod: GET) { id }
}"""
_REMOVE = 'mutation { removeModality(name: "archive") }'


@pytest.fixture(scope="module")
async def archive(
    samples: Served, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Archive]:
    """An archive that the server knows; it holds a study that the server does not."""
    files = list(_REMOTE.series(1, "Axial", slices=3, size=32))
    async with running_archive(tmp_path_factory.mktemp("peer"), files) as running:
        await samples.graphql(
            _DECLARE, aeTitle=running.ae_title, host=running.host, port=running.port
        )
        yield running
        await samples.graphql(_REMOVE)


@pytest.fixture
async def without_remote(samples: Served) -> AsyncIterator[None]:
    """Remove what a test fetched, made or sent here."""
    yield
    found = await samples.graphql(
        '{ studies(filter: {studyDescription: "Fetched CT"}) { nodes { id } } }'
    )
    for study in found["studies"]["nodes"]:  # type: ignore[index]
        await samples.graphql(
            "mutation ($id: ID!) { deleteStudy(id: $id) { deletedInstances } }", id=study["id"]
        )


@pytest.mark.usefixtures("archive", "without_remote")
async def test_a_study_of_another_archive_is_found_and_fetched(tab: Tab) -> None:
    page = await tab.open()
    await page.get_by_role("link", name="Network").click()
    await page.get_by_role("link", name="Remote").click()
    await page.get_by_role("button", name="Test the connection").click()
    await expect(page.locator(".toast")).to_contain_text("archive answers after")
    await page.get_by_label("Patient ID").fill("PHANTOM-REM*")
    await page.get_by_role("button", name="Search").click()
    row = page.locator(".found tbody tr")
    await expect(row).to_contain_text("PHANTOM-REMOTE")
    await expect(row).to_contain_text("Fetched CT")
    assert await findings(page) == []
    await row.get_by_role("button", name="Fetch").click()
    await row.get_by_role("link", name="Open").click()
    await expect(page.locator(".image")).to_be_visible()
    await expect(page.locator("#study-header h1")).to_contain_text("PHANTOM-REMOTE")
    await page.goto(f"{tab.url}#tab=jobs")
    job = page.locator(".job", has_text="Fetch from archive").first
    await expect(job.locator(".state")).to_have_text("done")
    await expect(job).to_contain_text("3 of 3 objects")
    await expect(job.get_by_role("link")).to_contain_text("Fetched CT")


async def test_a_modality_is_declared_tried_changed_and_removed(tab: Tab, archive: Archive) -> None:
    page = await tab.open("#tab=remote")
    known = page.locator("#modalities-known")
    await known.locator("summary").click()
    await known.get_by_role("button", name="Declare a modality").click()
    form = page.locator("#task")
    for label, value in (
        ("Name here", "second"),
        ("AE title", "WRONG"),
        ("Host", archive.host),
        ("Port", str(archive.port)),
    ):
        await form.get_by_label(label, exact=True).fill(value)
    assert await findings(page) == []
    await form.get_by_label("Encrypt (TLS)").check()
    await form.get_by_role("button", name="Declare").click()
    await expect(form.get_by_role("alert")).to_contain_text("DICOM_TLS_CERTIFICATE")
    await form.get_by_label("Encrypt (TLS)").uncheck()
    await form.get_by_label("Query", exact=True).uncheck()
    await form.get_by_role("button", name="Declare").click()
    row = known.locator("tbody tr", has_text="second")
    await row.get_by_role("button", name="Test second").click()
    await expect(row).to_contain_text("failed")
    await expect(row).to_contain_text("second is not called WRONG")
    await row.get_by_role("button", name="Change second").click()
    await expect(form.get_by_label("Query", exact=True)).not_to_be_checked()
    await form.get_by_label("AE title", exact=True).fill(archive.ae_title)
    await form.get_by_label("Query", exact=True).check()
    await form.get_by_role("button", name="Save").click()
    await expect(page.get_by_label("Archive").locator("option")).to_have_count(2)
    await row.get_by_role("button", name="Test second").click()
    await expect(row).to_contain_text("answered")
    assert await findings(page) == []
    await row.get_by_role("button", name="Remove second").click()
    await form.get_by_role("button", name="Remove").click()
    await expect(row).to_have_count(0)
    await expect(page.get_by_label("Archive").locator("option")).to_have_count(1)


async def test_chosen_studies_are_one_download(tab: Tab) -> None:
    page = await tab.open("#q=CompressedSamples")
    await page.get_by_role("button", name="Select").click()
    rows = page.locator("#studies tr")
    await rows.nth(0).click()
    await rows.nth(1).get_by_role("checkbox").check()
    await rows.nth(2).click()
    await rows.nth(2).click()
    bar = page.locator("#choices")
    await expect(bar).to_contain_text("2 studies chosen")
    assert await findings(page) == []
    await bar.get_by_role("button", name="Export", exact=True).click()
    job = page.locator(".job", has_text="Export").first
    await expect(job.locator(".state")).to_have_text("done")
    async with page.expect_download() as downloading:
        await job.get_by_role("link", name="Download").click()
    path = await (await downloading.value).path()
    with zipfile.ZipFile(path) as exported:
        assert len({name.split("/")[0] for name in exported.namelist()}) == 2


@pytest.mark.usefixtures("archive", "without_remote")
async def test_a_study_is_sent_and_copied_without_names(tab: Tab, samples: Served) -> None:
    await send(samples, *_REMOTE.series(1, "Axial", slices=2, size=32))
    page = await tab.open("#AccessionNumber=R-1")
    await expect(page.locator(".image")).to_be_visible()
    await page.get_by_role("button", name="More actions").click()
    await page.get_by_role("button", name="Send …").click()
    await page.locator("#task").get_by_role("button", name="Send").click()
    sent = page.locator(".job", has_text="Send to archive").first
    await expect(sent.locator(".state")).to_have_text("done")
    await expect(sent).to_contain_text("2 of 2 objects")
    await sent.get_by_role("link").click()
    await expect(page.locator(".image")).to_be_visible()
    await page.get_by_role("button", name="More actions").click()
    await page.get_by_role("button", name="Make an anonymous copy …").click()
    assert await findings(page) == []
    await page.get_by_label("Patient ID of the copy").fill("ANON-1")
    await page.get_by_role("button", name="Make the copy").click()
    copy = page.locator(".job", has_text="Anonymise").first
    await expect(copy.locator(".state")).to_have_text("done", timeout=30_000)
    await copy.get_by_role("link").click()
    await expect(page.locator("#study-header h1")).to_contain_text("ANON-1")
    await expect(page.locator(".corner-patient")).not_to_contain_text("Paula")
    # Pictures that are still loading would not be found any more.
    await page.goto("about:blank")
    found = await samples.graphql('{ patient(patientID: "ANON-1") { id } }')
    await samples.graphql(
        "mutation ($id: ID!) { deletePatient(id: $id) { deletedInstances } }",
        id=found["patient"]["id"],  # type: ignore[index]
    )


async def test_an_examination_is_planned_and_done(tab: Tab) -> None:
    page = await tab.open("#tab=worklist")
    await page.get_by_text("Plan an examination").click()
    form = page.get_by_role("form", name="Plan an examination")
    for label, value in (
        ("Accession number", "P-1"),
        ("Patient ID", "PLANNED-1"),
        ("Patient name", "Huber^Anna"),
        ("Modality", "CT"),
        ("Date", date.today().isoformat()),  # noqa: DTZ011  # what a person chooses
        ("Description", "CT head"),
    ):
        await form.get_by_label(label, exact=True).fill(value)
    await form.get_by_role("button", name="Plan").click()
    row = page.locator(".found tbody tr")
    await expect(row).to_contain_text("Anna Huber")
    await expect(row).to_contain_text("planned")
    assert await findings(page) == []
    await page.get_by_role("button", name="Done P-1").click()
    await expect(row).to_have_count(0)
    await page.get_by_label("Show finished ones too").check()
    await expect(row).to_contain_text("done")
    await page.get_by_role("button", name="Delete P-1").click()
    await expect(row).to_have_count(0)


async def test_a_viewer_sees_what_a_viewer_may_do(guarded_tab: tuple[Tab, str]) -> None:
    tab, token = guarded_tab
    page = await tab.open()
    await page.locator("#sign-in").get_by_label("Token").fill(token)
    await page.keyboard.press("Enter")
    await expect(page.locator("#studies tr", has_text="THORAX")).to_be_visible()
    await expect(page.locator("#choose-files")).to_be_hidden()
    await page.get_by_role("link", name="Network").click()
    await expect(page.locator("#tabs a")).to_have_text(["Jobs", "Worklist"])
    await page.get_by_role("link", name="Worklist").click()
    await expect(page.get_by_text("Show finished ones too")).to_be_visible()
    await expect(page.get_by_text("Plan an examination")).to_have_count(0)
    await page.goto(f"{tab.url}#q=THORAX")
    await page.locator("#studies a").first.click()
    await expect(page.locator("#download")).to_be_visible()
    await page.get_by_role("button", name="More actions").click()
    await expect(page.locator("#actions-menu button")).to_have_text(["Download this series"])
