from datetime import UTC, datetime
from pathlib import Path

import pytest
from playwright.async_api import expect

from services.access import Role
from services.credentials.token_file import changed_tokens
from services.credentials.tokens import issue_token
from tests.browser.conftest import Tab


@pytest.fixture
def token(tmp_path: Path) -> str:
    """A viewer's token that the guarded server knows."""
    with changed_tokens(tmp_path / "tokens.json") as change:
        change.tokens, secret = issue_token(
            change.tokens, name="reader", role=Role.VIEWER, now=datetime.now(UTC)
        )
    return secret


async def test_a_person_signs_in_with_a_token_and_out_again(token: str, guarded_tab: Tab) -> None:
    guarded_tab.expected_errors += ["401", "403", "WebSocket"]
    page = await guarded_tab.open()
    dialog = page.locator("#sign-in")
    await expect(dialog).to_be_visible()
    await expect(page.locator("#studies tr")).to_have_count(0)
    await dialog.get_by_label("Token").fill("not-this-one")
    await page.keyboard.press("Enter")
    await expect(dialog).to_contain_text("The server does not accept this token.")
    await dialog.get_by_label("Token").fill(token)
    await page.keyboard.press("Enter")
    await expect(page.locator("#studies tr", has_text="THORAX")).to_be_visible()
    await page.locator("#studies a", has_text="RG1").click()
    await expect(page.locator("#picture")).to_be_visible()
    await page.go_back()
    await page.locator("#worklist-view .sign-out").click()
    await expect(dialog).to_be_visible()


async def test_a_viewer_reads_why_an_upload_is_not_allowed(token: str, guarded_tab: Tab) -> None:
    guarded_tab.expected_errors += ["401", "403", "WebSocket"]
    page = await guarded_tab.open()
    await page.locator("#sign-in").get_by_label("Token").fill(token)
    await page.keyboard.press("Enter")
    await expect(page.locator("#studies tr", has_text="THORAX")).to_be_visible()
    await page.locator("#file-input").set_input_files(
        [{"name": "a.dcm", "mimeType": "application/dicom", "buffer": b"x"}]
    )
    await expect(page.locator(".upload .problems li")).to_have_text(
        "a.dcm failed: Your role does not allow this."
    )
