import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from models.share import ShareDocument
from services.errors import DatabaseUnavailable
from services.sharing.store import RecentShares

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def made(
    *, expires_at: datetime = NOW + timedelta(days=1), revoked_at: datetime | None = None
) -> ShareDocument:
    share: ShareDocument = ShareDocument.model_construct(
        id="s",
        name="x",
        sha256="0" * 64,
        study_ids=["a"],
        created_at=NOW,
        created_by="ann",
        expires_at=expires_at,
        revoked_at=revoked_at,
    )
    return share


class Stored:
    """One share in a database that is slow, or away, on demand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reads: list[str] = []
        self.is_away = False
        self.gate = asyncio.Event()
        self.gate.set()
        self.share: ShareDocument | None = made()

    async def read(self, key: str) -> ShareDocument | None:
        self.reads.append(key)
        found = self.share
        await self.gate.wait()
        if self.is_away:
            raise DatabaseUnavailable
        return found

    def recent(self) -> RecentShares:
        return RecentShares(self.read, monotonic=lambda: self.now)


async def test_a_share_is_read_again_after_a_second() -> None:
    stored = Stored()
    recent = stored.recent()
    assert await recent.get("a") is await recent.get("a") is stored.share
    stored.now, stored.share = 0.99, None
    assert await recent.get("a") is not None
    stored.now = 1.0
    assert await recent.get("a") is None
    assert stored.reads == ["a", "a"]


async def test_what_is_unknown_is_asked_for_once_a_second_too() -> None:
    stored = Stored()
    stored.share = None
    recent = stored.recent()
    assert [await recent.get("x") for _ in range(3)] == [None] * 3
    assert stored.reads == ["x"]


async def test_a_slow_reading_is_as_old_as_its_beginning() -> None:
    stored = Stored()
    stored.gate.clear()
    recent = stored.recent()
    waiting = [asyncio.create_task(recent.get("a")) for _ in range(3)]
    while not stored.reads:  # noqa: ASYNC110  # it runs in this loop
        await asyncio.sleep(0)
    waiting[0].cancel()
    stored.now = 1.5
    stored.gate.set()
    assert await asyncio.gather(*waiting[1:]) == [stored.share] * 2
    # Whoever went away did not end the reading of the others, and it was one.
    assert stored.reads == ["a"]
    await recent.get("a")
    assert stored.reads == ["a", "a"]


async def test_what_was_read_before_is_not_used_while_mongodb_is_away() -> None:
    stored = Stored()
    recent = stored.recent()
    await recent.get("a")
    stored.now, stored.is_away = 2.0, True
    with pytest.raises(DatabaseUnavailable):
        await recent.get("a")
    stored.is_away = False
    assert await recent.get("a") is stored.share


def test_a_share_ends_at_its_moment() -> None:
    share = made(expires_at=NOW)
    assert share.is_valid_at(NOW - timedelta(milliseconds=1))
    assert not share.is_valid_at(NOW)
    revoked = made(expires_at=NOW, revoked_at=NOW - timedelta(days=1))
    assert not revoked.is_valid_at(NOW - timedelta(hours=1))
