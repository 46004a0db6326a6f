from playwright.async_api import Route, expect

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
    await expect(page.locator(".image")).to_be_visible()
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


async def test_an_upload_without_a_valid_token_asks_for_one_and_goes_on(
    tab: Tab, without_ct: bytes
) -> None:
    tab.expected_errors.append("401")
    asked: list[str | None] = []

    async def refuse_first(route: Route) -> None:
        if b"mutation Upload" not in (route.request.post_data_buffer or b""):
            await route.fallback()
            return
        asked.append(route.request.headers.get("authorization"))
        if len(asked) > 1:
            await route.fallback()
            return
        error = {"message": "No.", "extensions": {"code": "UNAUTHENTICATED"}}
        await route.fulfill(status=401, json={"errors": [error]})

    page = await tab.open()
    await page.route("**/graphql", refuse_first)
    await page.locator("#file-input").set_input_files([sent_file("ct.dcm", without_ct)])
    await page.locator("#sign-in").get_by_label("Token").fill("another")
    await page.keyboard.press("Enter")
    await expect(page.locator(".upload .summary")).to_have_text("1 stored")
    assert asked == [None, "Bearer another"]


async def test_the_server_asks_uploads_for_a_token(
    guarded_tab: tuple[Tab, str], without_ct: bytes
) -> None:
    tab, token = guarded_tab
    page = await tab.open()
    dialog = page.locator("#sign-in")
    await dialog.get_by_label("Token").fill(token)
    await page.keyboard.press("Enter")
    await expect(page.locator("#studies tr", has_text="THORAX")).to_be_visible()
    await page.evaluate("sessionStorage.setItem('orthanc-graphql.token', 'no-longer-valid')")
    await page.locator("#file-input").set_input_files([sent_file("ct.dcm", without_ct)])
    await expect(dialog).to_be_visible()
    await dialog.get_by_label("Token").fill(token)
    await page.keyboard.press("Enter")
    await expect(page.locator(".upload .problems li")).to_have_text(
        "ct.dcm failed: This needs the role uploader."
    )
