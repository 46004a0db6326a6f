"""What a process knows of the tokens, and for how long."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from models.token import TokenDocument
from services.auth.roles import Principal, Role
from services.auth.tokens import TokenCache, digest_of, is_token_name
from services.errors import DatabaseUnavailable
from tests.tokens import made_token, read_cache_of

NOW = datetime(2026, 1, 2, tzinfo=UTC)


class Collection:
    """Tokens that change, and a clock."""

    def __init__(self, *tokens: TokenDocument) -> None:
        self.tokens = tokens
        self.seconds = 0.0
        self.reads = 0
        self.is_away = False
        self.begun = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def read_all(self) -> Sequence[TokenDocument]:
        self.reads += 1
        self.begun.set()
        await self.gate.wait()
        if self.is_away:
            raise DatabaseUnavailable
        return self.tokens

    def cache(self) -> TokenCache:
        return TokenCache(self.read_all, monotonic=lambda: self.seconds)


async def test_the_holder_has_the_tokens_name_and_role() -> None:
    document, secret = made_token("ward 3", Role.UPLOADER)
    tokens = await read_cache_of(document)
    assert tokens.find(secret, NOW) == Principal("ward 3", Role.UPLOADER)
    assert tokens.find(f"{secret}x", NOW) is None
    assert tokens.find("\udcff", NOW) is None
    assert document.sha256 == digest_of(secret)


async def test_a_token_is_valid_until_the_moment_it_expires() -> None:
    document, secret = made_token("a", lifetime=timedelta(seconds=10))
    tokens = await read_cache_of(document)
    assert tokens.find(secret, NOW + timedelta(seconds=9)) is not None
    assert tokens.find(secret, NOW + timedelta(seconds=10)) is None


async def test_a_role_that_nobody_knows_lets_nobody_in() -> None:
    document, secret = made_token("a")
    document.role = "root"
    assert (await read_cache_of(document)).find(secret, NOW) is None


async def test_a_revoked_token_is_refused_a_second_later() -> None:
    document, secret = made_token("a")
    collection = Collection(document)
    tokens = collection.cache()
    await tokens.refresh()
    collection.tokens = (document.model_copy(update={"revoked_at": NOW}),)
    collection.seconds = 0.9
    await tokens.refresh()
    assert (tokens.find(secret, NOW) is not None, collection.reads) == (True, 1)
    collection.seconds = 1.0
    await tokens.refresh()
    assert (tokens.find(secret, NOW), collection.reads) == (None, 2)
    assert tokens.has_any


async def test_the_time_of_a_slow_reading_counts() -> None:
    collection = Collection()
    collection.gate.clear()
    tokens = collection.cache()
    reading = asyncio.create_task(tokens.refresh())
    await collection.begun.wait()
    collection.seconds = 5.0
    collection.gate.set()
    await reading
    await tokens.refresh()
    assert collection.reads == 2


async def test_callers_share_a_reading_and_its_end_is_not_the_end_of_one() -> None:
    collection = Collection()
    collection.gate.clear()
    tokens = collection.cache()
    first, second = (asyncio.create_task(tokens.refresh()) for _ in range(2))
    await collection.begun.wait()
    first.cancel()
    await asyncio.wait([first])
    collection.gate.set()
    await second
    assert (first.cancelled(), collection.reads) == (True, 1)
    await tokens.aclose()


async def test_what_was_read_before_is_not_used_while_mongodb_is_away() -> None:
    collection = Collection(made_token("a")[0])
    tokens = collection.cache()
    await tokens.refresh()
    collection.is_away = True
    collection.seconds = 1.0
    with pytest.raises(DatabaseUnavailable):
        await tokens.refresh()


async def test_tokens_that_are_gone_were_there() -> None:
    document, secret = made_token("a")
    collection = Collection(document)
    tokens = collection.cache()
    await tokens.refresh()
    collection.tokens = ()
    collection.seconds = 1.0
    await tokens.refresh()
    assert (tokens.find(secret, NOW), tokens.has_any) == (None, True)


async def test_a_reading_that_nobody_waits_for_ends_with_the_server() -> None:
    collection = Collection()
    collection.gate.clear()
    tokens = collection.cache()
    waiting = asyncio.create_task(tokens.refresh())
    await collection.begun.wait()
    waiting.cancel()
    await asyncio.wait([waiting])
    await tokens.aclose()
    assert not tokens.has_any


@pytest.mark.parametrize("name", ["", " a", "a ", "a\nb", "oidc:x", "x" * 65, "local", "é", "a/b"])
def test_a_name_that_could_mislead_is_refused(name: str) -> None:
    assert not is_token_name(name)
    assert is_token_name("ward 3")
