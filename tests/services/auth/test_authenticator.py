import logging
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from models.token import TokenDocument
from services.auth.authenticator import Authenticator, bearer_credential
from services.auth.roles import LOCAL_ADMIN, Principal, Role
from services.auth.tokens import TokenCache
from services.errors import DatabaseUnavailable
from tests.tokens import made_token, read_cache_of

ALICE = Principal("alice", Role.VIEWER)


async def test_a_first_token_closes_an_open_server() -> None:
    document, secret = made_token("alice")
    tokens: list[TokenDocument] = []
    seconds = 0.0

    async def read_all() -> Sequence[TokenDocument]:
        return tokens

    authenticator = Authenticator(TokenCache(read_all, monotonic=lambda: seconds))
    assert authenticator.is_open
    assert await authenticator.authenticate(None) is LOCAL_ADMIN
    tokens.append(document)
    seconds = 1.0
    assert await authenticator.authenticate(None) is None
    assert not authenticator.is_open
    assert await authenticator.authenticate(f"Bearer {secret}") == ALICE


async def test_the_first_request_after_the_first_token_is_let_in_by_it() -> None:
    document, secret = made_token("alice")
    authenticator = Authenticator(await read_cache_of(document))
    assert await authenticator.authenticate(f"Bearer {secret}") == ALICE


@pytest.mark.parametrize("has_token", [False, True])
async def test_without_mongodb_a_token_is_not_believed_and_an_open_server_stays_open(
    *, has_token: bool
) -> None:
    document, secret = made_token("alice")
    seconds = 0.0
    is_away = False

    async def read_all() -> Sequence[TokenDocument]:
        if is_away:
            raise DatabaseUnavailable
        return [document] if has_token else []

    authenticator = Authenticator(TokenCache(read_all, monotonic=lambda: seconds))
    await authenticator.authenticate(None)
    is_away, seconds = True, 1.0
    if has_token:
        with pytest.raises(DatabaseUnavailable):
            await authenticator.authenticate(f"Bearer {secret}")
        assert await authenticator.authenticate(None) is None
    else:
        assert await authenticator.authenticate(None) is LOCAL_ADMIN


async def test_the_last_token_revoked_leaves_the_server_closed() -> None:
    document, secret = made_token("alice")
    document.revoked_at = document.created_at
    authenticator = Authenticator(await read_cache_of(document))
    assert not authenticator.is_open
    assert await authenticator.authenticate(None) is None
    assert await authenticator.authenticate(f"Bearer {secret}") is None


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
    header: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    document, secret = made_token("alice")
    authenticator = Authenticator(await read_cache_of(document))
    given = None if header is None else header.format(secret)
    assert await authenticator.authenticate(given) is None
    assert secret not in caplog.text


async def test_an_expired_token_is_nobody() -> None:
    lasting, secret = made_token("alice")
    expiring, expired = made_token("bob", lifetime=timedelta(days=1))
    late = Authenticator(
        await read_cache_of(lasting, expiring), now=lambda: datetime(2030, 1, 1, tzinfo=UTC)
    )
    assert await late.authenticate(f"Bearer {secret}") == ALICE
    assert await late.authenticate(f"Bearer {expired}") is None


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
