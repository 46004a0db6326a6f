"""The pictures of README.md. They are written anew where they are missing: `rm docs/*.png` first.

A test run must not change files that are under version control, so pictures that are there stay.
"""

from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from tests.browser.conftest import Tab

_DOCS = Path(__file__).parents[2] / "docs"
_LARGEST = 200_000
"""Bytes: what a README may cost."""


async def _worklist(tab: Tab) -> Page:
    page = await tab.open()
    await expect(page.locator("#studies tr", has_text="OFFIS Structured")).to_be_visible()
    await expect(page.locator("#live")).to_have_text("Live")
    return page


async def _viewer(tab: Tab) -> Page:
    page = await tab.open("#q=CQ500")
    await page.locator("#studies a").first.click()
    await expect(page.locator(".image")).to_be_visible()
    await page.keyboard.press("t")
    await page.keyboard.press("5")
    await expect(page.locator("#tags tbody tr").first).to_be_visible()
    await expect(page.locator(".corner-window")).to_have_text("W 80 C 40")
    return page


@pytest.mark.parametrize("name", ["worklist", "viewer"])
async def test_a_picture_for_the_readme_is_small(tab: Tab, name: str, tmp_path: Path) -> None:
    await tab.page.set_viewport_size({"width": 1180, "height": 700})
    page = await {"worklist": _worklist, "viewer": _viewer}[name](tab)
    await page.wait_for_load_state("networkidle")
    picture = await page.screenshot(path=tmp_path / f"{name}.png")
    assert len(picture) < _LARGEST
    kept = _DOCS / f"{name}.png"
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        kept.write_bytes(picture)
