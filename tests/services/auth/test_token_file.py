import logging
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from services.auth.authenticator import (
    Authenticator,
    bearer_credential,
    open_authenticator,
)
from services.auth.roles import LOCAL_ADMIN, Principal, Role
from services.auth.tokens import (
    TokenFile,
    TokensFileError,
    changed_tokens,
    issue_token,
    read_tokens,
    revoke_token,
)
from services.errors import InvalidInput

NOW = datetime(2026, 1, 2, tzinfo=UTC)
ALICE = Principal("alice", Role.VIEWER)


def add_token(path: Path, name: str = "alice", role: Role = Role.VIEWER) -> str:
    with changed_tokens(path) as change:
        change.tokens, secret = issue_token(change.tokens, name=name, role=role, now=NOW)
    return secret


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "tokens.json"


def test_the_file_is_readable_by_its_owner_only(path: Path) -> None:
    add_token(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [entry.name for entry in path.parent.iterdir()] == ["tokens.json"]


def test_a_change_that_fails_leaves_the_file_as_it_was(path: Path) -> None:
    add_token(path)
    before = path.read_bytes()
    with pytest.raises(InvalidInput):
        add_token(path)
    assert path.read_bytes() == before


def test_a_broken_file_is_not_overwritten(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("{", encoding="utf-8")
    with pytest.raises(TokensFileError, match="is broken"):
        add_token(path)
    assert path.read_text(encoding="utf-8") == "{"


def test_a_missing_file_that_a_setting_names_stops_the_start(path: Path) -> None:
    with pytest.raises(TokensFileError, match=r"does not exist\. Make the first token with"):
        TokenFile(path, is_required=True)


def test_a_broken_file_stops_the_start(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"\xff")
    with pytest.raises(TokensFileError, match="can't be read"):
        TokenFile(path, is_required=False)


def test_a_revoked_token_is_refused_after_the_file_changed(path: Path) -> None:
    secret = add_token(path)
    tokens = TokenFile(path, is_required=True)
    assert tokens.find(secret, NOW) == ALICE
    with changed_tokens(path) as change:
        change.tokens = revoke_token(change.tokens, "alice")
    tokens.refresh()
    assert tokens.find(secret, NOW) is None
    assert tokens.is_configured


def test_a_file_that_breaks_leaves_the_last_good_one_in_force(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    secret = add_token(path)
    tokens = TokenFile(path, is_required=True)
    path.write_text("{}", encoding="utf-8")
    tokens.refresh()
    assert tokens.find(secret, NOW) == ALICE
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "The tokens of before stay valid" in caplog.text


def test_a_file_that_goes_away_does_not_open_the_server(path: Path) -> None:
    secret = add_token(path)
    authenticator = Authenticator(tokens := TokenFile(path, is_required=False))
    path.unlink()
    tokens.refresh()
    assert not authenticator.is_open
    assert tokens.find(secret, NOW) == ALICE


async def test_a_first_token_closes_an_open_server(path: Path) -> None:
    tokens = TokenFile(path, is_required=False)
    authenticator = Authenticator(tokens, now=lambda: NOW)
    assert authenticator.is_open
    assert await authenticator.authenticate(None) is LOCAL_ADMIN
    secret = add_token(path)
    tokens.refresh()
    assert not authenticator.is_open
    assert await authenticator.authenticate(None) is None
    assert await authenticator.authenticate(f"Bearer {secret}") == ALICE


@pytest.mark.parametrize("content", ["{}", "", "not JSON"])
def test_a_first_file_that_makes_no_sense_closes_an_open_server(
    path: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = TokenFile(path, is_required=False)
    authenticator = Authenticator(tokens, now=lambda: NOW)
    path.parent.mkdir()
    path.write_text(content, encoding="utf-8")
    tokens.refresh()
    tokens.refresh()
    assert not authenticator.is_open
    assert [record.levelno for record in caplog.records] == [logging.ERROR]


def test_a_file_that_could_not_be_read_is_read_when_it_can_be(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = TokenFile(path, is_required=False)
    secret = add_token(path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_text", _denied)
        tokens.refresh()
    assert tokens.is_configured
    assert tokens.find(secret, NOW) is None
    tokens.refresh()
    assert tokens.find(secret, NOW) == ALICE


def test_a_folder_that_cannot_be_looked_into_stops_the_start(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "stat", _denied)
    monkeypatch.setattr(Path, "read_text", _denied)
    with pytest.raises(TokensFileError, match="can't be read"):
        TokenFile(path, is_required=False)


def _denied(*_given: object, **_options: object) -> str:
    raise PermissionError


async def test_the_last_token_revoked_leaves_the_server_closed(path: Path) -> None:
    add_token(path)
    with changed_tokens(path) as change:
        change.tokens = ()
    assert read_tokens(path) == ()
    authenticator = Authenticator(TokenFile(path, is_required=False))
    assert not authenticator.is_open
    assert await authenticator.authenticate(None) is None


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic {}",
        "{}",
        "Bearer {}x",
        "Bearer ogql_",
        "Bearer \udcff",
    ],
)
async def test_a_wrong_credential_is_nobody_and_not_logged(
    path: Path, header: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = add_token(path)
    async with open_authenticator(tokens_file=path, tokens_required=True) as authenticator:
        given = None if header is None else header.format(secret)
        assert await authenticator.authenticate(given) is None
    assert secret not in caplog.text


async def test_an_expired_token_is_nobody(path: Path) -> None:
    secret = add_token(path)
    late = Authenticator(
        TokenFile(path, is_required=True), now=lambda: datetime(2030, 1, 1, tzinfo=UTC)
    )
    assert await late.authenticate(f"Bearer {secret}") == ALICE
    with changed_tokens(path) as change:
        change.tokens, expiring = issue_token(
            change.tokens,
            name="bob",
            role=Role.VIEWER,
            now=NOW,
            lifetime=datetime(2029, 1, 1, tzinfo=UTC) - NOW,
        )
    late = Authenticator(
        TokenFile(path, is_required=True), now=lambda: datetime(2030, 1, 1, tzinfo=UTC)
    )
    assert await late.authenticate(f"Bearer {expiring}") is None


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("Bearer abc", "abc"),
        ("bearer  abc ", "abc"),
        ("Basic abc", None),
        ("Bearer", None),
        ("Bearer " + "x" * 20_000, None),
    ],
)
def test_the_credential_stands_behind_bearer(header: str, expected: str | None) -> None:
    assert bearer_credential(header) == expected
