import asyncio
import io
import re
import zipfile
from pathlib import Path

from playwright.async_api import Route, expect

from tests.browser.conftest import Tab, sent_file
from tests.server_process import Served

_LATE_ANSWERS = """
  const held = new Promise((release) => (window.release = release));
  const { set } = Object.getOwnPropertyDescriptor(XMLHttpRequestEventTarget.prototype, "onload");
  Object.defineProperty(XMLHttpRequest.prototype, "onload", {
    set(listener) { set.call(this, (event) => held.then(() => listener(event))); },
  });
"""
"""Answers to uploads come when `release` is called: as if the server took long."""


async def test_a_good_and_a_bad_file_each_get_their_result(tab: Tab, without_ct: bytes) -> None:
    page = await tab.open()
    files = [sent_file("ct.dcm", without_ct), sent_file("letter.txt", b"Dear colleague")]
    await page.locator("#file-input").set_input_files(files)
    card = page.locator(".upload")
    await expect(card.locator("h2")).to_have_text("Uploaded: 2 files")
    await expect(card.locator(".summary")).to_have_text("1 stored, 1 refused")
    await expect(card.locator(".problems li")).to_have_count(1)
    await expect(card.locator(".problems li")).to_contain_text("letter.txt refused: ")
    await card.locator(".links a").click()
    await expect(page.locator("#study-header h1")).to_contain_text("1CT1")
    await expect(page.locator(".image")).to_be_visible()


async def test_a_new_study_appears_by_itself(tab: Tab, without_ct: bytes, samples: Served) -> None:
    page = await tab.open("#q=1CT1")
    await expect(page.get_by_text("No study matches these filters.")).to_be_visible()
    await expect(page.locator("#live")).to_have_text("Live")
    response = await samples.http.post("/api/dicom/upload", files={"file": ("ct.dcm", without_ct)})
    assert response.status_code == 200, response.text
    await expect(page.locator("#studies tr")).to_have_count(1)
    await expect(page.locator("#studies tr")).to_contain_text("CT1 CompressedSamples")


async def test_a_zip_is_as_good_as_its_files_and_the_page_says_how_far_it_is(
    tab: Tab, without_ct: bytes
) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a/ct.dcm", without_ct)
        archive.writestr("a/readme.txt", "hello")
    await tab.page.add_init_script(_LATE_ANSWERS)
    page = await tab.open()
    await page.locator("#file-input").set_input_files([sent_file("all.zip", packed.getvalue())])
    state = page.locator(".upload .state")
    await expect(state).to_have_text(
        re.compile("sent · 2 of 2 files checked · 1 stored · 1 not stored$")
    )
    await expect(page.locator(".upload progress")).to_have_js_property("value", 1)
    await page.evaluate("release()")
    await expect(page.locator(".upload .summary")).to_have_text("1 stored, 1 refused")
    await expect(page.locator(".upload .problems li")).to_contain_text("all.zip/a/readme.txt")


async def test_a_dropped_folder_is_read_to_its_last_level(
    tab: Tab, without_ct: bytes, tmp_path: Path
) -> None:
    (tmp_path / "disk" / "deep").mkdir(parents=True)
    (tmp_path / "disk" / "deep" / "ct.dcm").write_bytes(without_ct)
    (tmp_path / "disk" / ".DS_Store").write_bytes(b"litter")
    page = await tab.open()
    session = await tab.context.new_cdp_session(page)
    data = {"items": [], "files": [str(tmp_path / "disk")], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver"):
        await session.send(
            "Input.dispatchDragEvent", {"type": kind, "x": 600, "y": 500, "data": data}
        )
    await expect(page.locator("#drop-target")).to_be_visible()
    await session.send(
        "Input.dispatchDragEvent", {"type": "drop", "x": 600, "y": 500, "data": data}
    )
    await expect(page.locator("#drop-target")).to_be_hidden()
    await expect(page.locator(".upload h2")).to_have_text("Uploaded: 1 file")
    await expect(page.locator(".upload .summary")).to_have_text("1 stored")


async def test_many_files_go_in_batches(tab: Tab) -> None:
    page = await tab.open()
    sizes: list[int] = []

    async def count_files(route: Route) -> None:
        body = route.request.post_data_buffer or b""
        if b"mutation Upload" in body:
            sizes.append(body.count(b"filename="))
        await route.fallback()

    await page.route("**/graphql", count_files)
    await page.evaluate(
        """() => {
          const transfer = new DataTransfer();
          for (let i = 0; i < 520; i++) transfer.items.add(new File(["no DICOM"], `${i}.txt`));
          const input = document.getElementById("file-input");
          input.files = transfer.files;
          input.dispatchEvent(new Event("change"));
        }"""
    )
    await expect(page.locator(".upload .summary")).to_have_text("520 refused", timeout=30_000)
    assert sizes == [40] * 13
    await expect(page.locator(".upload .problems li")).to_have_count(500)


async def test_an_upload_can_be_cancelled(tab: Tab, without_ct: bytes) -> None:
    page = await tab.open()
    held = asyncio.Event()

    async def hold(route: Route) -> None:
        if b"mutation Upload" not in (route.request.post_data_buffer or b""):
            await route.fallback()
            return
        await held.wait()
        await route.abort()

    await page.route("**/graphql", hold)
    await page.locator("#file-input").set_input_files([sent_file("ct.dcm", without_ct)])
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.locator(".upload h2")).to_have_text("Cancelled: 1 file")
    held.set()
    await page.get_by_role("button", name="Close").click()
    await expect(page.locator("#uploads")).to_be_hidden()
