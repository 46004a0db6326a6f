"""axe-core's rules on every screen; nothing is accepted."""

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Scheme, Tab, sent_file

_AXE = Path(__file__).parents[1] / "frontend/node_modules/axe-core/axe.min.js"
_RUN = """async () => (await axe.run()).violations
  .map((found) => `${found.id}: ${found.nodes.map((node) => node.html).join(" | ")}`)"""


async def findings(page: Page) -> list[str]:
    """Return what axe-core finds on a page."""
    await page.evaluate(_AXE.read_text(encoding="utf-8"))
    found: list[str] = await page.evaluate(_RUN)
    return found


class _Eye:
    """Looks at screens and keeps what axe-core finds, by their names."""

    def __init__(self) -> None:
        self.found: dict[str, list[str]] = {}

    async def look(self, screen: str, page: Page) -> None:
        if told := await findings(page):
            self.found[screen] = told


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_every_screen_can_be_used_by_everybody(
    tab: Tab, guarded_tab: tuple[Tab, str], scheme: Scheme
) -> None:
    """The list and the study are looked at in test_appearance as well, at all sizes."""
    eye = _Eye()
    await tab.page.emulate_media(color_scheme=scheme)
    await _look_at_lists(tab, eye)
    await _look_at_a_study(tab, eye)
    await _look_at_the_network(tab, eye)
    page = guarded_tab[0].page
    await page.emulate_media(color_scheme=scheme)
    await guarded_tab[0].open()
    await expect(page.locator("#sign-in")).to_be_visible()
    await eye.look("sign-in", page)
    assert eye.found == {}


async def _look_at_lists(tab: Tab, eye: _Eye) -> None:
    page = await tab.open("#order=PATIENT_NAME+ASC")
    await expect(page.locator("#studies tr").first).to_be_visible()
    await page.locator("#file-input").set_input_files([sent_file("a.txt", b"no DICOM")])
    await expect(page.locator(".upload .problems li")).to_be_visible()
    await eye.look("list with an upload", page)
    await page.get_by_role("button", name="Close").click()
    await tab.open("#q=nobody")
    await expect(page.get_by_text("No study matches these filters.")).to_be_visible()
    await eye.look("empty list", page)


async def _look_at_a_study(tab: Tab, eye: _Eye) -> None:
    page = await tab.open("#q=THORAX")
    await expect(page.locator("#studies tr")).to_have_count(1)
    await page.locator("#studies a").first.click()
    await expect(page.locator(".image")).to_be_visible()
    await page.keyboard.press("t")
    await expect(page.locator("#tags tbody tr").first).to_be_visible()
    await eye.look("study", page)
    await page.keyboard.press("?")
    await expect(page.locator("#keys")).to_be_visible()
    await eye.look("keys", page)
    await page.keyboard.press("Escape")
    await page.locator("#open-share").click()
    share = page.locator("#share")
    await share.get_by_label("For whom or what").fill("axe")
    await share.get_by_role("button", name="Create link").click()
    await expect(share.locator("#share-list li").first).to_be_visible()
    await eye.look("share", page)
    await share.get_by_role("button", name="Revoke axe").click()
    await expect(share.locator("#share-existing")).to_be_hidden()
    await page.keyboard.press("Escape")
    await page.get_by_role("button", name="More actions").click()
    await page.get_by_role("button", name="Delete this study").click()
    await expect(page.locator("#delete")).to_be_visible()
    await eye.look("deletion", page)
    await page.keyboard.press("Escape")


async def _look_at_the_network(tab: Tab, eye: _Eye) -> None:
    page = await tab.open("#tab=jobs")
    await expect(page.locator("#tabs a")).to_have_text(["Remote", "Jobs", "Worklist"])
    await expect(page.locator(".jobs")).to_be_attached()
    await eye.look("jobs", page)
    await page.get_by_role("link", name="Remote").click()
    await expect(page.get_by_text("No archive is declared that may be asked.")).to_be_visible()
    await eye.look("remote", page)
    await page.get_by_role("link", name="Worklist").click()
    await page.get_by_text("Plan an examination").click()
    await expect(page.get_by_role("form", name="Plan an examination")).to_be_visible()
    await eye.look("worklist", page)


@pytest.mark.parametrize("width", [360, 768, 3840])
async def test_no_width_makes_the_page_scroll_sideways(tab: Tab, width: int) -> None:
    await tab.page.set_viewport_size({"width": width, "height": 900})
    page = await tab.open("#q=THORAX")
    await expect(page.locator("#studies tr")).to_have_count(1)
    assert await _overflow(page) == 0
    await page.locator("#studies a").first.click()
    await expect(page.locator(".image")).to_be_visible()
    assert await _overflow(page) == 0


async def _overflow(page: Page) -> int:
    """CSS pixels by which the page is wider than its window."""
    wider: int = await page.evaluate(
        "document.documentElement.scrollWidth - document.documentElement.clientWidth"
    )
    return wider
