import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from playwright.async_api import Download, Locator, Page, Request, Route, expect

from services.frames.signing import FrameUrlSigner, load_or_create_keys
from tests.browser.conftest import Tab
from tests.patience import PATIENCE_SECONDS
from tests.server_process import Served

_CINE = "#q=204"
_MR_SERIES = "#q=Brain-MRA"


async def _open_study(tab: Tab, search: str) -> Page:
    page = await tab.open(search)
    await page.locator("#studies a").first.click()
    await expect(page.locator(".image")).to_be_visible()
    return page


def _position(page: Page) -> Locator:
    return page.locator("#position-text")


async def _source(page: Page) -> str:
    return str(await page.locator(".image").get_attribute("data-source"))


async def test_wheel_and_keys_go_through_a_stack(tab: Tab) -> None:
    page = await _open_study(tab, _MR_SERIES)
    await expect(_position(page)).to_have_text("4 / 7")
    await page.locator(".stage").hover()
    await page.mouse.wheel(0, 120)
    await expect(_position(page)).to_have_text("5 / 7")
    await page.keyboard.press("ArrowUp")
    await expect(_position(page)).to_have_text("4 / 7")
    await page.keyboard.press("End")
    await expect(_position(page)).to_have_text("7 / 7")
    await page.keyboard.press("Home")
    await expect(_position(page)).to_have_text("1 / 7")
    await expect(page.locator(".image")).to_have_attribute(
        "aria-label", re.compile(r"Image 1 of 7")
    )


async def test_a_link_opens_the_same_frame_in_the_same_window(tab: Tab) -> None:
    page = await _open_study(tab, _MR_SERIES)
    await page.keyboard.press("End")
    await page.keyboard.press("2")
    await page.keyboard.press("f")
    await expect(page).to_have_url(re.compile("window=full&zoom=1"))
    address = page.url
    instance = await page.locator(".image").get_attribute("data-instance")
    other = await tab.context.new_page()
    await other.goto(address)
    await expect(_position(other)).to_have_text("7 / 7")
    await expect(other.locator(".image")).to_have_attribute("data-instance", str(instance))
    await expect(other.locator("#preset")).to_have_value("full")
    await expect(other.locator('#zoom input[value="1"]')).to_be_checked()


async def test_a_cine_plays_at_the_speed_of_the_file_and_stops(tab: Tab) -> None:
    page = await _open_study(tab, _CINE)
    await expect(_position(page)).to_have_text("1 / 120")
    await page.keyboard.press("Space")
    await expect(page.locator("#play")).to_have_attribute("aria-pressed", "true")
    await expect(page.locator(".image")).to_have_attribute("data-frame", re.compile(r"\d\d"))
    await expect(page.locator("#speed-text")).to_have_text("30 /s")
    await page.keyboard.press("Space")
    await expect(page.locator("#play")).to_have_attribute("aria-pressed", "false")
    frame = await page.locator(".image").get_attribute("data-frame")
    await expect(page.locator(".image")).to_have_attribute(
        "data-source", re.compile(r"/default\.png$")
    )
    await page.keyboard.press("-")
    await expect(page.locator("#speed-text")).to_have_text("29 /s")
    await expect(page.locator(".image")).to_have_attribute("data-frame", str(frame))


async def test_dragging_changes_the_window(tab: Tab) -> None:
    page = await _open_study(tab, "#q=CQ500")
    before = await _source(page)
    await expect(page.locator(".corner-window")).to_have_text("W 100 C 40")
    queries: list[str] = []

    def note_query(sent: Request) -> None:
        if "graphql" in sent.url:
            queries.append(sent.post_data or sent.url)

    page.on("request", note_query)
    await page.mouse.move(600, 400)
    await page.mouse.down()
    await page.mouse.move(640, 420, steps=4)
    await page.mouse.move(680, 440, steps=4)
    await page.mouse.up()
    await expect(page.locator(".corner-window")).to_have_text("W 125 C 53")
    await expect(page.locator(".image")).to_have_attribute("data-source", re.compile("w53x125"))
    assert await _source(page) != before
    assert queries == []


async def test_presets_of_computed_tomography_are_windows_in_hounsfield_units(tab: Tab) -> None:
    page = await _open_study(tab, "#q=CQ500")
    await expect(page.locator("#preset option")).to_have_text(
        ["Default", "Full range", "Lung", "Bone", "Brain", "Soft tissue"]
    )
    await page.locator("#preset").select_option(label="Lung")
    await expect(page.locator(".corner-window")).to_have_text("W 1500 C -600")
    await page.keyboard.press("Tab")
    await page.keyboard.press("2")
    await expect(page.locator(".corner-window")).to_have_text("full range")
    await expect(page.locator(".image")).to_have_attribute("data-source", re.compile("/full"))


async def test_colour_has_no_window(tab: Tab) -> None:
    page = await _open_study(tab, "#q=13US1")
    await expect(page.locator("#preset")).to_be_disabled()
    await expect(page.locator(".corner-window")).to_have_text("colour")


async def test_one_to_one_shows_the_pixels_of_the_image(tab: Tab) -> None:
    page = await _open_study(tab, "#q=THORAX")
    await page.locator("#zoom label", has_text="1:1").click()
    await expect(page.locator(".image")).to_have_js_property("offsetWidth", 1841)
    await page.locator("#zoom label", has_text="Fit").click()
    assert await page.locator(".image").evaluate("image => image.offsetWidth") < 1280


async def test_the_header_is_a_table_that_can_be_searched(tab: Tab) -> None:
    page = await _open_study(tab, "#q=THORAX")
    await page.keyboard.press("t")
    tags = page.locator("#tags")
    await tags.get_by_role("searchbox").fill("patient's name")
    line = tags.locator("tbody tr:visible")
    await expect(line).to_have_count(1)
    await expect(line).to_have_text("(0010,0010)Patient's NamePNCompressedSamples^RG1")
    await expect(tags.locator(".total")).to_have_text("1 element")


async def test_what_cannot_be_shown_says_why(tab: Tab) -> None:
    page = await tab.open("#q=OFFIS")
    await page.locator("#studies a").click()
    await expect(page.locator(".reason")).to_have_text(re.compile(r"\w+ .*\."))
    await expect(page.locator(".image")).to_be_hidden()
    await page.keyboard.press("t")
    await expect(page.locator("#tags tbody tr").first).to_be_visible()


async def test_a_study_that_is_not_there_is_a_sentence_and_nothing_of_another_patient_stays(
    tab: Tab,
) -> None:
    page = await _open_study(tab, "#q=THORAX")
    await page.evaluate("location.hash = 'StudyInstanceUID=1.2.3.4'")
    await expect(page.locator(".reason")).to_have_text(
        "There is no such study. It may have been deleted."
    )
    await expect(page.locator(".image")).to_be_hidden()
    for part in ("#identity", "#strip", ".corner-patient"):
        await expect(page.locator(part).first).to_be_empty()
    assert "RG1" not in await page.title()


async def test_the_study_downloads_as_a_zip(tab: Tab) -> None:
    page = await _open_study(tab, "#q=THORAX")
    async with page.expect_download() as waiting:
        await page.locator("#download").click()
    download: Download = await waiting.value
    path = await download.path()
    assert path.read_bytes()[:4] == b"PK\x03\x04"


async def test_expired_urls_are_renewed_unnoticed(tab: Tab, samples: Served) -> None:
    signer = FrameUrlSigner(load_or_create_keys(samples.data_dir))
    expired: list[str] = []

    async def age_first_answer(route: Route) -> None:
        if expired or "query Stack" not in (route.request.post_data or ""):
            await route.fallback()
            return
        response = await route.fetch()
        answer: dict[str, Any] = await response.json()
        for instance in answer["data"]["node"]["instances"]:
            instance["frame"]["path"] = _aged(instance["frame"]["path"], signer)
            expired.append(samples.url + instance["frame"]["path"])
        await route.fulfill(response=response, json=answer)

    await tab.page.route("**/graphql", age_first_answer)
    tab.expected_errors.append("410")
    page = await _open_study(tab, "#q=THORAX")
    assert expired
    assert await _source(page) not in expired
    await expect(page.locator(".image")).to_have_attribute("data-width", "1841")
    await expect(page.locator(".reason")).to_be_hidden()


def _aged(path: str, signer: FrameUrlSigner) -> str:
    # A time at which this path is valid: a minute before its end.
    now = int(path.split("/v2/")[1].split(".")[1], 16) - 60
    reference = signer.verify_frame(path.encode(), now=now)
    aged = signer.frame_template(reference.instance_id, reference.revision, now=now - 86_400).path
    return aged.replace("{frame}", "0").replace("{variant}", "default")


async def test_a_picture_that_comes_later_is_waited_for(tab: Tab) -> None:
    refused: list[str] = []

    async def refuse_twice(route: Route) -> None:
        if len(refused) == 2:
            await route.fallback()
            return
        refused.append(route.request.url)
        await route.fulfill(
            status=503,
            headers={"Retry-After": "1"},
            json={"code": "ORTHANC_UNAVAILABLE", "detail": "Orthanc restarts."},
        )

    page = await _open_study(tab, "#q=THORAX")
    await page.route("**/frames/**", refuse_twice)
    tab.expected_errors.append("503")
    await page.keyboard.press("2")
    await expect(page.locator(".reason")).to_have_text("Orthanc restarts. Trying again …")
    await expect(page.locator(".image")).to_be_visible()
    await expect(page.locator(".reason")).to_be_hidden()


async def test_a_neighbour_that_comes_later_leaves_the_picture_on_the_screen(tab: Tab) -> None:
    refused = asyncio.Event()

    async def refuse_neighbours(route: Route) -> None:
        if _instance(route.request.url) == wanted:
            await route.fallback()
            return
        await route.fulfill(
            status=503,
            headers={"Retry-After": "60"},
            json={"code": "ORTHANC_UNAVAILABLE", "detail": "Orthanc restarts."},
        )
        refused.set()

    page = await _open_study(tab, _MR_SERIES)
    wanted = _instance(await _source(page))
    await page.wait_for_load_state("networkidle")
    await page.route("**/frames/**", refuse_neighbours)
    tab.expected_errors.append("503")
    await page.keyboard.press("2")
    await asyncio.wait_for(refused.wait(), PATIENCE_SECONDS)
    source = re.compile(f"/{wanted}/.*/full.png$")
    await expect(page.locator(".image")).to_have_attribute("data-source", source)
    await page.wait_for_load_state("networkidle")
    await expect(page.locator(".reason")).to_be_hidden()
    await expect(page.locator(".image")).to_be_visible()


def _instance(url: str) -> str:
    """/frames/v2/SIGNATURE/INSTANCE/REVISION/FRAME/VARIANT."""
    return url.split("/")[-4]


async def test_a_picture_that_never_comes_says_why(tab: Tab) -> None:
    tab.expected_errors.append("415")
    page = await _open_study(tab, "#q=THORAX")
    await page.route(
        "**/frames/**",
        lambda route: route.fulfill(
            status=415,
            json={"code": "FRAME_NOT_RENDERABLE", "detail": "Nobody can decode this."},
        ),
    )
    await page.keyboard.press("2")
    await expect(page.locator(".reason")).to_have_text("Nobody can decode this.")
    await expect(page.locator(".image")).to_be_hidden()


def _answering_late(
    operation: str, release: asyncio.Event, held: asyncio.Event, *, failing: bool
) -> Callable[[Route], Awaitable[None]]:
    """Hold the first request of an operation until `release`, then answer or break it."""

    async def answer(route: Route) -> None:
        if held.is_set() or operation not in (route.request.post_data or ""):
            await route.fallback()
            return
        held.set()
        await release.wait()
        if failing:
            refusal = {"errors": [{"message": "Too late.", "extensions": {"code": "INTERNAL"}}]}
            await route.fulfill(json=refusal)
        else:
            await route.continue_()

    return answer


@pytest.mark.parametrize("failing", [False, True], ids=["answer", "failure"])
@pytest.mark.parametrize("operation", ["query StudyPage", "query Stack"])
async def test_a_late_answer_for_the_study_before_changes_nothing(
    tab: Tab, operation: str, failing: bool
) -> None:
    release, held = asyncio.Event(), asyncio.Event()
    await tab.page.route("**/graphql", _answering_late(operation, release, held, failing=failing))
    page = await tab.open("#q=CompressedSamples")
    await page.locator("#studies a", has_text="RG1").click()
    await asyncio.wait_for(held.wait(), PATIENCE_SECONDS)
    await page.keyboard.press("Escape")
    await page.locator("#studies a", has_text="MR2").click()
    await expect(page.locator(".image")).to_be_visible()
    async with page.expect_event("requestfinished", lambda request: operation in _sent(request)):
        release.set()
    await page.wait_for_load_state("networkidle")
    await expect(page.locator("#study-header h1")).to_contain_text("MR2")
    await expect(page.locator(".corner-patient")).to_contain_text("MR2")
    await expect(page.locator(".corner-window")).to_have_text(re.compile("^W"))
    await expect(page.locator(".reason")).to_be_hidden()
    await expect(page.locator(".image")).to_be_visible()


def _sent(request: Request) -> str:
    return request.post_data or ""


async def test_a_failed_header_request_leaves_the_header_of_a_later_one(tab: Tab) -> None:
    release, held = asyncio.Event(), asyncio.Event()
    page = await _open_study(tab, _MR_SERIES)
    await page.route("**/graphql", _answering_late("query Tags", release, held, failing=True))
    await page.keyboard.press("t")
    await asyncio.wait_for(held.wait(), PATIENCE_SECONDS)
    await page.keyboard.press("ArrowDown")
    rows = page.locator("#tags tbody tr")
    await expect(rows.first).to_be_visible()
    async with page.expect_event("requestfinished", lambda sent: "query Tags" in _sent(sent)):
        release.set()
    await page.wait_for_load_state("networkidle")
    await expect(page.locator("#tags")).not_to_contain_text("Too late.")
    await expect(rows.first).to_be_visible()


async def test_names_of_elements_that_failed_are_asked_for_again(tab: Tab) -> None:
    tab.expected_errors.append("503")
    await tab.page.route("**/element-names.json", lambda route: route.fulfill(status=503), times=1)
    page = await _open_study(tab, _MR_SERIES)
    await page.keyboard.press("t")
    await expect(page.locator("#tags .problem")).to_contain_text("503")
    await page.keyboard.press("ArrowDown")
    await expect(page.locator("#tags tbody tr", has_text="Patient's Name")).to_have_count(1)
