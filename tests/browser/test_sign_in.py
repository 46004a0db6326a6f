from playwright.async_api import expect

from tests.browser.conftest import Tab, sent_file


async def test_a_person_signs_in_with_a_token_and_out_again(guarded_tab: tuple[Tab, str]) -> None:
    tab, token = guarded_tab
    page = await tab.open()
    dialog = page.locator("#sign-in")
    await expect(dialog).to_be_visible()
    await expect(page.locator("#studies tr")).to_have_count(0)
    await dialog.get_by_label("Token").fill("not-this-one")
    await page.keyboard.press("Enter")
    await expect(dialog).to_contain_text("The server does not accept this token.")
    await dialog.get_by_label("Token").fill(token)
    await page.keyboard.press("Enter")
    await expect(page.locator("#studies tr", has_text="THORAX")).to_be_visible()
    await expect(page.locator("#live")).to_have_text("Live")
    await page.locator("#studies a", has_text="RG1").click()
    await expect(page.locator("#picture")).to_be_visible()
    await page.go_back()
    await page.locator("#worklist-view .sign-out").click()
    await expect(dialog).to_be_visible()


async def test_a_viewer_reads_why_an_upload_is_not_allowed(guarded_tab: tuple[Tab, str]) -> None:
    tab, token = guarded_tab
    page = await tab.open()
    await page.locator("#sign-in").get_by_label("Token").fill(token)
    await page.keyboard.press("Enter")
    await expect(page.locator("#studies tr", has_text="THORAX")).to_be_visible()
    await page.locator("#file-input").set_input_files([sent_file("a.dcm", b"x")])
    await expect(page.locator(".upload .problems li")).to_have_text(
        "a.dcm failed: This needs the role uploader."
    )
