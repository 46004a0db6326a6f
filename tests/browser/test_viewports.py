"""The viewer on computed studies: what is measured, how pictures lie, viewports side by side."""

import asyncio
import re

import pytest
from playwright.async_api import Locator, Page, Route, expect

from tests.browser.conftest import Tab, send
from tests.browser.phantoms import BALL_CENTER, BALL_HU, CORONAL, SIDE_MM, Phantom
from tests.server_process import Served

Phantoms = tuple[Phantom, Phantom]

_LARGE = {"width": 1400, "height": 900}


async def _open(tab: Tab, phantoms: Phantoms, more: str = "") -> Page:
    page = await tab.open(f"#StudyInstanceUID={phantoms[0].study_uid}{more}")
    await expect(page.locator(".image")).to_be_visible()
    await expect(page.locator(".image")).to_have_attribute("data-width", "128")
    return page


async def _on_picture(page: Page, left_mm: float, back_mm: float) -> tuple[float, float]:
    """Return the point of the page that shows a place of the axial picture, in mm."""
    box = await page.locator(".image").first.bounding_box()
    assert box is not None
    x = box["x"] + (left_mm / SIDE_MM + 0.5) * box["width"]
    return x, box["y"] + (back_mm / SIDE_MM + 0.5) * box["height"]


async def _drag(page: Page, begin: tuple[float, float], end: tuple[float, float]) -> None:
    await page.mouse.move(*begin)
    await page.mouse.down()
    await page.mouse.move((begin[0] + end[0]) / 2, (begin[1] + end[1]) / 2)
    await page.mouse.move(*end)
    await page.mouse.up()


def _letters(page: Page) -> Locator:
    return page.locator(".viewport.active .letter")


async def test_a_length_is_in_millimetres_at_any_size(tab: Tab, phantoms: Phantoms) -> None:
    page = await _open(tab, phantoms)
    await page.keyboard.press("l")
    await _drag(page, await _on_picture(page, -50, 0), await _on_picture(page, 50, 0))
    label = page.locator(".drawing text")
    await expect(label).to_have_text("100.0 mm")
    await expect(page.get_by_text("Measurements: not for diagnosis")).to_be_visible()
    await page.keyboard.press("f")
    await page.keyboard.press("r")
    await expect(label).to_have_text("100.0 mm")
    await page.keyboard.press("ArrowDown")
    await expect(label).to_have_count(0)
    await page.keyboard.press("ArrowUp")
    await expect(label).to_have_count(1)
    await page.keyboard.press("Delete")
    await expect(label).to_have_count(0)
    await expect(page.get_by_text("Measurements: not for diagnosis")).to_be_hidden()


async def test_an_angle_takes_two_legs(tab: Tab, phantoms: Phantoms) -> None:
    page = await _open(tab, phantoms)
    await page.keyboard.press("a")
    await _drag(page, await _on_picture(page, -40, -40), await _on_picture(page, 0, 0))
    end = await _on_picture(page, -40, 0)
    await page.mouse.move(*end)
    await page.mouse.click(*end)
    await expect(page.locator(".drawing text")).to_have_text("45°")
    await page.mouse.move(*(await _on_picture(page, 60, 60)))
    await expect(page.locator(".drawing text")).to_have_text("45°")


async def test_an_ellipse_has_the_values_of_the_file_whatever_the_window(
    tab: Tab, phantoms: Phantoms
) -> None:
    page = await _open(tab, phantoms)
    await page.locator("#preset").select_option(label="Lung")
    await expect(page.locator(".image")).to_have_attribute("data-source", re.compile("w-600x1500"))
    left, back, _ = BALL_CENTER
    await page.keyboard.press("e")
    begin, end = (left - 10, back - 10), (left + 10, back + 10)
    await _drag(page, await _on_picture(page, *begin), await _on_picture(page, *end))
    lines = page.locator(".drawing text tspan")
    await expect(lines.nth(0)).to_have_text(f"Mean {BALL_HU} HU ± 0 ({BALL_HU} to {BALL_HU})")
    await expect(lines.nth(1)).to_have_text(re.compile(r"Area 31\d\.\d mm²"))
    await page.locator(".drawing .remove").click()
    await expect(lines).to_have_count(0)


async def test_letters_follow_the_picture_when_it_is_turned_and_mirrored(
    tab: Tab, phantoms: Phantoms
) -> None:
    page = await _open(tab, phantoms)
    await expect(_letters(page)).to_have_text(["R", "L", "A", "P"])
    await page.keyboard.press("r")
    await expect(_letters(page)).to_have_text(["P", "A", "R", "L"])
    await page.keyboard.press("h")
    await expect(_letters(page)).to_have_text(["A", "P", "R", "L"])
    await page.keyboard.press("v")
    await expect(_letters(page)).to_have_text(["A", "P", "L", "R"])
    await page.keyboard.press("0")
    await expect(_letters(page)).to_have_text(["R", "L", "A", "P"])
    await page.keyboard.press("]")
    await expect(_letters(page)).to_have_text(["R", "L", "H", "F"])


async def test_the_wheel_with_ctrl_zooms_at_the_pointer(tab: Tab, phantoms: Phantoms) -> None:
    page = await _open(tab, phantoms)
    before = await _on_picture(page, 40, -20)
    await page.mouse.move(*before)
    await page.keyboard.down("Control")
    await page.mouse.wheel(0, -200)
    await page.keyboard.up("Control")
    await expect(page).to_have_url(re.compile(r"zoom=\d"))
    assert await _on_picture(page, 40, -20) == pytest.approx(before, abs=2)
    await expect(page.locator('#zoom input[value="fit"]')).not_to_be_checked()
    await expect(page.locator(".corner-size")).to_have_attribute("data-zoom", re.compile("%"))


async def test_two_fingers_zoom_what_is_between_them(tab: Tab, phantoms: Phantoms) -> None:
    page = await _open(tab, phantoms)
    box = await page.locator(".image").bounding_box()
    middle = await _on_picture(page, 0, 0)
    session = await tab.context.new_cdp_session(page)

    async def touch(kind: str, *half_widths: float) -> None:
        points = [{"x": middle[0] + at, "y": middle[1]} for at in half_widths]
        await session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})

    await touch("touchStart", -40, 40)
    await touch("touchMove", -80, 80)
    await touch("touchEnd")
    wider = await page.locator(".image").bounding_box()
    assert box is not None
    assert wider is not None
    assert wider["width"] == pytest.approx(box["width"] * 2, rel=0.02)
    assert await _on_picture(page, 0, 0) == pytest.approx(middle, abs=1)
    await expect(page.locator("#position-text")).to_have_text("7 / 12")


async def test_no_reference_line_lies_where_there_is_no_picture_yet(
    tab: Tab, phantoms: Phantoms
) -> None:
    await tab.page.set_viewport_size(_LARGE)  # type: ignore[arg-type]
    page = await _open(tab, phantoms)
    is_released = asyncio.Event()

    async def hold(route: Route) -> None:
        await is_released.wait()
        await route.continue_()

    await page.route("**/frames/**", hold)
    await page.keyboard.press("g")
    await expect(page.locator(".corner-series").nth(1)).to_contain_text("Coronal")
    await page.keyboard.press("x")
    lines = page.locator(".reference-lines line")
    await expect(lines).to_have_count(0)
    is_released.set()
    await expect(lines).to_have_count(1)
    height = await page.locator(".stage").nth(1).evaluate("stage => stage.clientHeight")
    assert 0 < float(str(await lines.get_attribute("y1"))) < height


async def test_reference_lines_and_linked_stacks_know_the_patient(
    tab: Tab, phantoms: Phantoms
) -> None:
    await tab.page.set_viewport_size(_LARGE)  # type: ignore[arg-type]
    page = await _open(tab, phantoms)
    await page.keyboard.press("g")
    await expect(page.locator(".viewport .image")).to_have_count(2)
    await expect(page.locator(".corner-series").nth(1)).to_contain_text("Coronal")
    await page.keyboard.press("x")
    line = page.locator(".viewport").nth(1).locator(".reference-lines line")
    await expect(page.locator(".image").nth(1)).to_have_attribute("data-width", re.compile(r"\d"))
    await expect(line).to_have_count(1)
    height = float(str(await line.get_attribute("y1")))
    await page.keyboard.press("ArrowDown")
    await expect(line).not_to_have_attribute("y1", str(height))
    pixel = await page.locator(".image").nth(1).evaluate("image => image.offsetHeight / 256")
    # A slice lies 256 / 12 mm nearer to the head, which is up.
    moved = float(str(await line.get_attribute("y1"))) - height
    assert moved == pytest.approx(-pixel * SIDE_MM / 12, rel=0.02)
    await page.keyboard.press("k")
    await page.keyboard.press("ArrowDown")
    # A coronal stack is not parallel: it stays.
    await expect(page.locator(".corner-series").nth(1)).to_contain_text("7 / 12")


async def test_an_earlier_study_stands_beside_and_scrolls_along(
    tab: Tab, phantoms: Phantoms
) -> None:
    page = await _open(tab, phantoms)
    await page.get_by_role("button", name="Show the study of 2021-03-01 beside").click()
    corners = page.locator(".corner-series")
    await expect(page.locator(".corner-patient").nth(1)).to_contain_text("Earlier study 2021-03-01")
    await expect(corners.nth(1)).to_contain_text("7 / 12")
    await page.locator(".stage").nth(1).focus()
    await page.keyboard.press("ArrowUp")
    await page.locator(".stage").first.focus()
    await page.locator("#link").click()
    await page.locator(".stage").first.focus()
    await page.keyboard.press("ArrowDown")
    await expect(corners.nth(0)).to_contain_text("8 / 12")
    # The studies have no common frame of reference: the slices that were seen keep their distance.
    await expect(corners.nth(1)).to_contain_text("7 / 12")
    await expect(page).to_have_url(re.compile("study="))
    await page.keyboard.press("g")
    await page.keyboard.press("g")
    await expect(page.locator(".viewport")).to_have_count(1)
    await expect(page.locator(".corner-patient")).to_contain_text("2024-05-01")


async def test_an_open_study_follows_what_arrives_and_what_goes(tab: Tab, samples: Served) -> None:
    study = Phantom.of("PHANTOM-2", accession_number="A-2")
    first, *others = study.series(1, "Axial", slices=4, size=64)
    await send(samples, first)
    page = await tab.open("#AccessionNumber=A-2")
    await expect(page.locator("#position-text")).to_have_text("1 / 1")
    await page.keyboard.press("l")
    await send(samples, *others, *study.series(2, "Coronal", orientation=CORONAL, slices=2))
    await expect(page.locator("#position-text")).to_have_text("1 / 4")
    await expect(page.locator("#strip a[data-series]")).to_have_count(2)
    await expect(page.locator("#strip a[data-series]").first).to_contain_text("4 images")
    await page.get_by_role("button", name="More actions").click()
    async with page.expect_download() as waiting:
        await page.get_by_role("button", name="Download this series").click()
    assert (await (await waiting.value).path()).read_bytes()[:4] == b"PK\x03\x04"
    await page.get_by_role("button", name="More actions").click()
    await page.get_by_role("button", name="Delete this series …").click()
    await expect(page.locator("#delete-what")).to_have_text(
        "Paula Phantom, PHANTOM-2: the series “1 Axial” with 4 objects."
    )
    await page.get_by_role("button", name="Keep").click()
    await expect(page.locator("#strip a[data-series]")).to_have_count(2)
    await page.get_by_role("button", name="More actions").click()
    await page.get_by_role("button", name="Delete this series …").click()
    await page.get_by_role("button", name="Delete", exact=True).click()
    await expect(page.locator("#strip a[data-series]")).to_have_count(1)
    await expect(page.locator(".corner-series")).to_contain_text("2 Coronal")
    found = await samples.graphql(
        "query ($id: String!) { study(studyInstanceUID: $id) { id } }", id=study.study_uid
    )
    await samples.graphql(
        "mutation ($id: ID!) { deleteStudy(id: $id) { deletedInstances } }",
        id=found["study"]["id"],  # type: ignore[index]
    )
    await expect(page.locator(".reason")).to_have_text("This study was deleted.")
    await expect(page.locator("#tools")).to_be_hidden()


async def test_an_accession_number_of_several_studies_shows_the_list(
    tab: Tab, samples: Served
) -> None:
    studies = [Phantom.of(f"PHANTOM-{number}", accession_number="A-9") for number in (3, 4)]
    for study in studies:
        await send(samples, *study.series(1, "Axial", slices=1, size=32))
    page = await tab.open("#AccessionNumber=A-9")
    await expect(page.locator("#studies tr")).to_have_count(2)
    await page.goto(f"{tab.url}#AccessionNumber=A-none")
    await expect(page.locator(".reason")).to_contain_text("There is no such study.")
    for study in studies:
        found = await samples.graphql(
            "query ($id: String!) { study(studyInstanceUID: $id) { id } }", id=study.study_uid
        )
        await samples.graphql(
            "mutation ($id: ID!) { deleteStudy(id: $id) { deletedInstances } }",
            id=found["study"]["id"],  # type: ignore[index]
        )


async def test_the_sheet_lists_the_keys(tab: Tab, phantoms: Phantoms) -> None:
    page = await _open(tab, phantoms)
    await page.keyboard.press("?")
    await expect(page.locator("#keys")).to_contain_text("reference lines")
    await expect(page.locator("#keys")).to_contain_text("Mouse and touch")
