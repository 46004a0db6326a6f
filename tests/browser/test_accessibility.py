"""axe-core's rules on every view; nothing serious or critical is accepted."""

from pathlib import Path
from typing import Literal

import pytest
from playwright.async_api import Page, expect

import graph.web
from tests.browser.conftest import Tab, sent_file

_AXE = Path(graph.web.__file__).parent / "node_modules/axe-core/axe.min.js"
_RUN = """async (impacts) => (await axe.run()).violations
  .filter((found) => impacts.includes(found.impact))
  .map((found) => `${found.id}: ${found.nodes.map((node) => node.html).join(" | ")}`)"""


async def findings(page: Page, *, serious_only: bool = True) -> list[str]:
    """Return what axe-core finds on a page."""
    await page.evaluate(_AXE.read_text(encoding="utf-8"))
    impacts = ["serious", "critical"] + ([] if serious_only else ["minor", "moderate"])
    found: list[str] = await page.evaluate(_RUN, impacts)
    return found


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_the_worklist_can_be_used_by_everybody(
    tab: Tab, scheme: Literal["dark", "light"]
) -> None:
    await tab.page.emulate_media(color_scheme=scheme)
    page = await tab.open("#order=PATIENT_NAME+ASC")
    await expect(page.locator("#studies tr").first).to_be_visible()
    assert await findings(page) == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
async def test_the_study_page_can_be_used_by_everybody(
    tab: Tab, scheme: Literal["dark", "light"]
) -> None:
    await tab.page.emulate_media(color_scheme=scheme)
    page = await tab.open("#q=THORAX")
    await page.locator("#studies a").first.click()
    await expect(page.locator(".image")).to_be_visible()
    await page.keyboard.press("t")
    await expect(page.locator("#tags tbody tr").first).to_be_visible()
    assert await findings(page) == []


async def test_a_result_list_can_be_used_by_everybody(tab: Tab) -> None:
    page = await tab.open()
    await page.locator("#file-input").set_input_files([sent_file("a.txt", b"no DICOM")])
    await expect(page.locator(".upload .problems li")).to_be_visible()
    assert await findings(page) == []


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
