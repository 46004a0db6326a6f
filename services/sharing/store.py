"""Shares in MongoDB: written, searched, and kept for a second by every process."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any

import pymongo
from cachetools import LRUCache
from pymongo import ReadPreference
from pymongo.asynchronous.database import AsyncDatabase

from models import ShareDocument
from models.stored import stored_name
from services.database import translated_database_faults
from services.query.paging import Order, Page, PageRequest, make_page, plan_page
from services.tasks import cancel_and_wait

_EXPIRES_AT = stored_name(ShareDocument.expires_at)
_CREATED_BY = stored_name(ShareDocument.created_by)
_LAST_USED_AT = stored_name(ShareDocument.last_used_at)
_USE_COUNT = stored_name(ShareDocument.use_count)
_CREATED_AT = stored_name(ShareDocument.created_at)
_REVOKED_AT = stored_name(ShareDocument.revoked_at)


_FRESH_SECONDS = 1.0
"""How long a share that was read is used. A revoked one is refused after this time and one read, by
every process: nothing has to be running for it."""

_READ_SECONDS = 3.0
"""Longest wait for MongoDB: after it, requests with a share are answered that it is away."""

_KEPT = 4096
"""Shares that are in use at once, and unknown tokens."""

NEWEST_FIRST = Order(_CREATED_AT, ascending=False)


class ShareStore:
    """The shares in MongoDB.

    Args:
        database: An open database.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._collection = database[ShareDocument.Settings.name]

    async def add(self, share: ShareDocument) -> None:
        """Add a share.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            await self._collection.insert_one(share.model_dump(by_alias=True, exclude_none=True))

    async def find(self, share_id: str) -> ShareDocument | None:
        """Read a share by its identifier; None for an unknown one."""
        return await self._find({"_id": share_id})

    async def find_by_digest(self, sha256: str) -> ShareDocument | None:
        """Read a share by the hash of its token; None for an unknown one."""
        return await self._find({"sha256": sha256})

    async def revoke(
        self, share_id: str, *, created_by: str | None, now: datetime
    ) -> ShareDocument | None:
        """Make a share invalid; one that is revoked already stays as it is.

        Args:
            share_id: Which.
            created_by: Only one that this principal made; None: of any principal.
            now: The time, with time zone.

        Returns:
            The share; None when there is none.
        """
        condition = {"_id": share_id, **_of(created_by)}
        with translated_database_faults():
            await self._collection.update_one(
                {**condition, _REVOKED_AT: None}, {"$set": {_REVOKED_AT: now}}
            )
        return await self._find(condition)

    async def page(
        self,
        request: PageRequest,
        *,
        created_by: str | None,
        valid_at: datetime | None,
        max_size: int,
    ) -> Page:
        """Read a page of shares, the newest first.

        Args:
            request: Which part.
            created_by: Only those of this principal; None: everybody's.
            valid_at: Only those that are neither revoked nor expired then; None: all.
            max_size: Largest page.

        Raises:
            InvalidInput: The page makes no sense.
            DatabaseUnavailable: MongoDB does not answer.
        """
        plan = plan_page(request, NEWEST_FIRST, max_size=max_size)
        filter_ = {"$and": [_listed(created_by, valid_at), plan.filter]}
        with translated_database_faults():
            found = self._collection.find(filter_, sort=list(plan.sort), limit=plan.limit)
            documents = await found.to_list()
        return make_page(plan, NEWEST_FIRST, documents)

    async def count(self, *, created_by: str | None, valid_at: datetime | None) -> int:
        """Count the shares of the whole list; arguments as those of `page`."""
        with translated_database_faults():
            return int(await self._collection.count_documents(_listed(created_by, valid_at)))

    async def mark(self, share_id: str, field: str, *, before: datetime, now: datetime) -> bool:
        """Set a time of a share unless it was set lately; of several processes one does it.

        Args:
            share_id: Which.
            field: Stored name of the time; `lastUsedAt` counts the use as well.
            before: What is older is set again.
            now: The time, with time zone.

        Returns:
            Whether it was set.
        """
        due = {"_id": share_id, "$or": [{field: None}, {field: {"$lte": before}}]}
        change: dict[str, Any] = {"$set": {field: now}}
        if field == _LAST_USED_AT:
            change["$inc"] = {_USE_COUNT: 1}
        with translated_database_faults():
            result = await self._collection.update_one(due, change)
        return bool(result.matched_count)

    async def _find(self, filter_: Mapping[str, Any]) -> ShareDocument | None:
        # While a new primary is elected, the other members know the shares as well.
        readable = self._collection.with_options(read_preference=ReadPreference.PRIMARY_PREFERRED)
        with translated_database_faults(), pymongo.timeout(_READ_SECONDS):
            document = await readable.find_one(filter_)
        return None if document is None else ShareDocument.model_validate(document)


def _of(created_by: str | None) -> dict[str, Any]:
    return {} if created_by is None else {_CREATED_BY: created_by}


def _listed(created_by: str | None, valid_at: datetime | None) -> dict[str, Any]:
    valid = {} if valid_at is None else {_REVOKED_AT: None, _EXPIRES_AT: {"$gt": valid_at}}
    return {**_of(created_by), **valid}


class RecentShares:
    """Shares as they were within the last second, by whatever they are looked up by.

    Args:
        read: Reads a share from MongoDB; None for an unknown one.
        monotonic: A clock that never goes back, in seconds.
    """

    def __init__(
        self,
        read: Callable[[str], Awaitable[ShareDocument | None]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read = read
        self._monotonic = monotonic
        self._kept: LRUCache[str, tuple[float, ShareDocument | None]] = LRUCache(_KEPT)
        self._reading: dict[str, asyncio.Task[ShareDocument | None]] = {}

    async def get(self, key: str) -> ShareDocument | None:
        """Return a share, read again when that was more than a second ago.

        Callers that come while it is read wait for the same reading.

        Raises:
            DatabaseUnavailable: It can't be read. What was read before must not be used.
        """
        kept = self._kept.get(key)
        if kept is not None and self._monotonic() - kept[0] < _FRESH_SECONDS:
            return kept[1]
        reading = self._reading.get(key)
        if reading is None:
            reading = self._reading[key] = asyncio.create_task(self._renew(key))
            reading.add_done_callback(lambda _: self._reading.pop(key, None))
        # A caller that goes away must not end the reading of the others.
        return await asyncio.shield(reading)

    async def aclose(self) -> None:
        """End readings that still run."""
        await cancel_and_wait(*self._reading.values())

    async def _renew(self, key: str) -> ShareDocument | None:
        # What is revoked while MongoDB answers may be missing: the time before counts.
        begun = self._monotonic()
        share = await self._read(key)
        self._kept[key] = begun, share
        return share
