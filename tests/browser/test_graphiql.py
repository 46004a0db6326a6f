import re

from playwright.async_api import expect

from tests.browser.conftest import Tab


async def test_an_example_query_runs(tab: Tab) -> None:
    page = await tab.open("graphql")
    await expect(page.get_by_role("tab", name="NewestStudies")).to_be_visible()
    await page.get_by_role("button", name=re.compile("Execute query")).click()
    await expect(page.locator(".result-window")).to_contain_text('"totalCount"')
    await expect(page.locator(".result-window")).not_to_contain_text('"errors"')


async def test_the_schema_is_there_to_read(tab: Tab) -> None:
    page = await tab.open("graphql")
    await page.get_by_role("button", name="Show Documentation Explorer").click()
    await expect(page.get_by_role("link", name="Query", exact=True)).to_be_visible()


async def test_a_token_goes_with_every_request(tab: Tab) -> None:
    page = await tab.open("graphql")
    await page.get_by_label("Token").fill("a-token")
    async with page.expect_request(lambda request: request.method == "POST") as waiting:
        await page.get_by_role("button", name="Use").click()
    request = await waiting.value
    assert request.headers["authorization"] == "Bearer a-token"
    assert request.headers["graphql-preflight"] == "1"
