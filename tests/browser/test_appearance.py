"""What the page looks like: four sizes, dark and light, mouse and touch.

The pictures in `appearance/` are screens, shrunk until letters are grey. After a change of the page
that is meant, remove them and run this module: it writes what is missing, and fails.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from playwright.async_api import Browser, Page, ViewportSize, expect

from tests.browser.conftest import Scheme, Tab, opened_tab
from tests.browser.phantoms import Phantom
from tests.browser.test_accessibility import findings
from tests.server_process import Served

_KEPT = Path(__file__).parent / "appearance"
_KEPT_WIDTH = 160
"""Pixels: 5 kB a picture, and the shapes of letters, which differ between machines, are gone."""

_DIFFERENT, _MOST_DIFFERENT = 40, 0.02
"""Grey levels that count as different, and the share of pixels that may be."""

_PHONE: ViewportSize = {"width": 390, "height": 844}
_TABLET: ViewportSize = {"width": 820, "height": 1180}
_DESK: ViewportSize = {"width": 1400, "height": 900}
_WALL: ViewportSize = {"width": 2560, "height": 1440}
_SIZES = {"phone": _PHONE, "tablet": _TABLET, "desk": _DESK, "wall": _WALL}
_TOUCHED = {"phone", "tablet"}
_EXAMINED = {"phone", "desk"}
"""By axe-core: the others have the same elements, with more room."""

_SMALL_CONTROLS = """() => [...document.querySelectorAll("button, select, a, label > span")]
  .filter((control) => control.checkVisibility({ visibilityProperty: true }))
  .filter((control) => !control.closest("th, tbody, .skip, .hidden"))
  .map((control) => [control.id || control.textContent, control.getBoundingClientRect()])
  .filter(([, box]) => box.width > 0 && (box.width < 43.5 || box.height < 43.5))
  .map(([name, box]) => `${name}: ${Math.round(box.width)} x ${Math.round(box.height)}`)"""

_SIDEWAYS = """() => {
  const { scrollWidth, clientWidth } = document.documentElement;
  const bars = [...document.querySelectorAll("#tools, #study-header, .scrub, .filters, .viewer")];
  return [scrollWidth - clientWidth, ...bars.map((bar) => bar.scrollWidth - bar.clientWidth)];
}"""


@asynccontextmanager
async def _screen(
    browser: Browser, samples: Served, size: str, scheme: Scheme
) -> AsyncIterator[tuple[Tab, Page]]:
    is_touched = size in _TOUCHED
    async with opened_tab(
        browser,
        samples,
        viewport=_SIZES[size],
        color_scheme=scheme,
        has_touch=is_touched,
        is_mobile=is_touched,
    ) as tab:
        yield tab, tab.page


async def _open_list(tab: Tab) -> None:
    await tab.open("#q=PHANTOM-1")
    await expect(tab.page.locator("#studies tr")).to_have_count(2)
    await expect(tab.page.locator("#studies img").last).to_have_js_property("complete", value=True)


async def _open_study(tab: Tab, study: Phantom) -> None:
    await tab.open(f"#StudyInstanceUID={study.study_uid}")
    await expect(tab.page.locator(".image")).to_have_attribute("data-width", "128")
    await expect(tab.page.locator("#strip img").last).to_have_js_property("complete", value=True)


async def _check(page: Page, size: str) -> None:
    if size in _EXAMINED:
        assert await findings(page) == []
    assert max(await page.evaluate(_SIDEWAYS)) <= 0
    tools = page.locator("#tools")
    if await tools.is_visible():
        box = await tools.bounding_box()
        assert box is not None
        assert box["height"] < 60  # CSS pixels: one row
        assert await page.locator(".corner-patient").first.is_visible()
        assert await page.locator(".corner-series").first.is_visible()
    if size in _TOUCHED:
        assert await page.evaluate(_SMALL_CONTROLS) == []


@pytest.mark.parametrize("scheme", ["dark", "light"])
@pytest.mark.parametrize("size", _SIZES)
async def test_a_screen_fits_and_looks_as_it_did(
    browser: Browser,
    samples: Served,
    phantoms: tuple[Phantom, Phantom],
    size: str,
    scheme: Scheme,
) -> None:
    async with _screen(browser, samples, size, scheme) as (tab, page):
        if scheme == "dark":
            await _open_list(tab)
            await _check(page, size)
            await _compare(page, f"list-{size}-{scheme}")
        await _open_study(tab, phantoms[0])
        await _check(page, size)
        await _compare(page, f"study-{size}-{scheme}")
        await page.keyboard.press("g")
        await page.keyboard.press("t")
        await expect(page.locator(".viewport .image")).to_have_count(2)
        await expect(page.locator("#tags tbody tr").first).to_be_visible()
        await _check(page, size)


async def test_everything_can_be_reached_on_a_phone(
    browser: Browser, samples: Served, phantoms: tuple[Phantom, Phantom]
) -> None:
    async with _screen(browser, samples, "phone", "dark") as (tab, page):
        await _open_study(tab, phantoms[0])
        await page.get_by_role("button", name="More tools").tap()
        menu = page.locator("#tools-menu")
        for name in ("Invert", "DICOM header", "Keys"):
            await expect(menu.get_by_title(name)).to_be_visible()
        await menu.locator("#preset").select_option(label="Lung")
        await expect(page.locator(".corner-window")).to_have_text("W 1500 C -600")
        await menu.get_by_title("Two viewports").tap()
        await expect(menu).to_be_hidden()
        await expect(page.locator(".viewport .image")).to_have_count(2)
        await page.get_by_role("button", name="More actions").tap()
        await expect(page.get_by_role("button", name="Download ZIP")).to_be_visible()
        await expect(page.get_by_role("button", name="Delete this study …")).to_be_visible()


async def _compare(page: Page, name: str) -> None:
    """Compare the screen with the one that is kept; what depends on the time is left out."""
    changing = [page.locator(".changed, #live, #warnings, #total, .upload")]
    screen = await page.screenshot(mask=changing, mask_color="#808080")
    shown = _shrunk(cv2.imdecode(np.frombuffer(screen, np.uint8), cv2.IMREAD_COLOR))
    path = _KEPT / f"{name}.png"
    kept = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if kept is None:
        path.parent.mkdir(exist_ok=True)
        assert cv2.imwrite(str(path), shown)
        pytest.fail(f"{path.name} was missing: look at the new one, and keep it")
    assert kept.shape == shown.shape
    apart = np.abs(kept.astype(int) - shown.astype(int)).max(axis=-1) > _DIFFERENT
    assert apart.mean() <= _MOST_DIFFERENT, f"{name}: {apart.mean():.1%} of the screen is different"


def _shrunk(screen: npt.ArrayLike | None) -> npt.NDArray[np.uint8]:
    assert screen is not None
    picture = np.asarray(screen, np.uint8)
    rows, columns = picture.shape[:2]
    size = (_KEPT_WIDTH, round(rows * _KEPT_WIDTH / columns))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)
