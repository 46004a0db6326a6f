import cv2
import numpy as np
from playwright.async_api import expect

from tests.browser.conftest import Tab


async def test_a_link_shows_one_study_until_it_is_revoked(tab: Tab) -> None:
    page = await tab.open()
    await page.locator("#studies a", has_text="RG1").click()
    await page.locator("#open-share").click()
    dialog = page.locator("#share")
    await dialog.get_by_label("For whom or what").fill("Dr. Huber")
    await dialog.get_by_role("button", name="Create link").click()
    link = dialog.get_by_label("The link, shown only now")
    await expect(link).to_be_visible()
    address = await link.input_value()
    assert address.startswith(f"{tab.url}s/ogqs_")
    await expect(dialog.locator("#share-list li")).to_contain_text("Dr. Huber")
    picture = np.frombuffer(await dialog.locator("#share-qr").screenshot(), np.uint8)
    pixels = cv2.imdecode(picture, cv2.IMREAD_COLOR)
    assert pixels is not None
    decoded, _, _ = cv2.QRCodeDetector().detectAndDecode(pixels)
    assert decoded == address

    # Whoever has the link sees this study, and nothing to change or to sign in with.
    other = await tab.context.new_page()
    await other.goto(address)
    await expect(other.locator("#studies tr")).to_have_count(1)
    await expect(other.locator("#shared")).to_contain_text("Shared with you until")
    await expect(other.locator("#live")).to_have_text("Live")
    await expect(other.locator("#choose-files")).to_have_count(0)
    await other.locator("#studies a", has_text="RG1").click()
    await expect(other.locator(".image")).to_be_visible()
    await expect(other.locator("#open-share")).to_have_count(0)
    await expect(other.locator("#download")).to_have_count(0)

    await dialog.get_by_role("button", name="Revoke Dr. Huber").click()
    await expect(dialog.locator("#share-existing")).to_be_hidden()
    await expect(dialog.get_by_label("For whom or what")).to_be_focused()
    # Escape closes the dialog alone, wherever the focus is.
    await page.evaluate("document.activeElement.blur()")
    await page.keyboard.press("Escape")
    await expect(dialog).to_be_hidden()
    await expect(page.locator("#study-view")).to_be_visible()
    tab.expected_errors += ["401", "410"]
    ended = other.locator("#ended")
    for _ in range(20):
        await other.goto("about:blank")
        await other.goto(address)
        await other.wait_for_selector("#ended[open], #studies tr")
        if await ended.is_visible():
            break
    await expect(ended).to_contain_text("This link has ended")
