"""Write parent documents as compare-and-set on their `version`, until every one is settled.

Correct across processes without transactions: a process that writes children rolls their parent up
afterwards, and a parent is written only if its version is the one read before its children.
So the last process that wrote a parent had seen every child.
"""

import asyncio
import random
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pymongo import DeleteOne, InsertOne, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import BulkWriteError

from services.errors import DatabaseUnavailable
from services.index.record import Fields


@dataclass(frozen=True, slots=True)
class Insert:
    """There was no such document: insert one, unless another process did so first."""

    id: str
    content: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Update:
    """Set fields of the document if it still has the version that was read."""

    id: str
    expected_version: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delete:
    """The last child is gone: remove the document if it still has the version that was read."""

    id: str
    expected_version: str


Write = Insert | Update | Delete


def plan_write(
    document_id: str,
    *,
    current: Fields | None,
    content: Fields | None,
    on_insert: Fields | None = None,
    on_change: Fields | None = None,
    must_touch: bool,
) -> Write | None:
    """Decide the one write that brings a document to its content.

    Args:
        document_id: Its `_id`.
        current: As read before the children were, None when there was none.
        content: What it should hold, None when it has no children any more.
        on_insert: More that is written with a new document; None: a new one can't be made,
            because its attributes are not at hand.
        on_change: More that is written when the content changed.
        must_touch: Children were written, so that a process that aggregated before must lose its
            race: the version changes even when the content does not.

    Returns:
        None when the document needs no write.
    """
    if content is None:
        return None if current is None else Delete(document_id, current["version"])
    if current is None:
        if on_insert is None:
            return None
        return Insert(document_id, {**content, **(on_change or {}), **on_insert})
    changed = {key: value for key, value in content.items() if current.get(key, _GONE) != value}
    if changed:
        return Update(document_id, current["version"], {**changed, **(on_change or {})})
    return Update(document_id, current["version"], {}) if must_touch else None


_GONE = object()


Documents = AsyncCollection[dict[str, Any]]

_ATTEMPTS = 30
"""Each lost race means that another process won one: with ten processes a few are usual."""

_JITTER_SECONDS = 0.01
_DUPLICATE_KEY = 11000


class Level(Protocol):
    """Series, studies or patients: where their documents are and what makes up their content."""

    @property
    def documents(self) -> Documents:
        """The collection."""
        ...

    async def read_content(self, ids: Collection[str]) -> Mapping[str, Fields]:
        """Read what the children give their parents; parents without children are left out."""
        ...

    def plan(
        self, id_: str, current: Fields | None, content: Fields | None, *, must_touch: bool
    ) -> Write | None:
        """Decide one write from the stored document and the content; see `plan_write`."""
        ...

    async def record_removals(self, documents: Sequence[Fields]) -> None:
        """Record that these documents are about to be removed; the removal may lose its race."""
        ...


def new_version() -> str:
    """Return a fresh random version token: 16 hex digits."""
    return secrets.token_hex(8)


async def update_until_stable(
    level: Level,
    ids: Collection[str],
    *,
    children_written: bool,
    known: Mapping[str, Fields] | None = None,
    dry_run: bool = False,
) -> set[str]:
    """Bring the documents of a level to the content that their stored children give them.

    Args:
        level: Series, studies or patients.
        ids: Which documents, by `_id`.
        children_written: The caller wrote children; False when it may leave all as it is.
        known: Documents by `_id` that were read before the children are; None: they are read here.
        dry_run: Write nothing.

    Returns:
        The ids of the documents that were written or removed, or would be.

    Raises:
        DatabaseUnavailable: Too many races were lost.
    """
    written: set[str] = set()
    pending = dict.fromkeys(ids, children_written)
    for attempt in range(_ATTEMPTS):
        current = await _read(level.documents, pending) if known is None else known
        known = None
        content = await level.read_content(pending)
        planned = (
            level.plan(id_, current.get(id_), content.get(id_), must_touch=must_touch)
            for id_, must_touch in pending.items()
        )
        writes = [write for write in planned if write is not None]
        written.update(write.id for write in writes)
        if dry_run:
            return written
        if removed := [current[write.id] for write in writes if isinstance(write, Delete)]:
            await level.record_removals(removed)
        lost = await _write(level.documents, writes)
        # Absence has no version: what appeared and went while the children were read shows only
        # when they are read again.
        pending = {write.id: False for write in writes if isinstance(write, Insert)}
        pending |= dict.fromkeys(lost, True)
        if not pending:
            return written
        if lost:
            await asyncio.sleep(random.uniform(0, _JITTER_SECONDS * (attempt + 1)))  # noqa: S311  # no secret
    raise DatabaseUnavailable(detail=f"{len(pending)} roll-ups lost {_ATTEMPTS} races")


async def _read(documents: Documents, ids: Collection[str]) -> Mapping[str, Fields]:
    found = documents.find({"_id": {"$in": list(ids)}})
    return {document["_id"]: document async for document in found}


async def _write(documents: Documents, writes: Sequence[Write]) -> list[str]:
    """Carry writes out and return the ids of those that lost their race."""
    if not writes:
        return []
    versions = {write.id: new_version() for write in writes}
    requests = [_request(write, versions[write.id]) for write in writes]
    try:
        result = await documents.bulk_write(requests, ordered=False)
    except BulkWriteError as exc:
        if any(error["code"] != _DUPLICATE_KEY for error in exc.details["writeErrors"]):
            raise
    else:
        if result.matched_count + result.inserted_count + result.deleted_count == len(writes):
            return []
    stored = {
        document["_id"]: document["version"]
        async for document in documents.find({"_id": {"$in": list(versions)}}, {"version": 1})
    }
    return [write.id for write in writes if _is_lost(write, versions[write.id], stored)]


def _is_lost(write: Write, version: str, stored: Mapping[str, str]) -> bool:
    if isinstance(write, Delete):
        return write.id in stored
    return stored.get(write.id) != version


def _request(write: Write, version: str) -> InsertOne[dict[str, Any]] | UpdateOne | DeleteOne:
    match write:
        case Insert(id_, content):
            return InsertOne({"_id": id_, **content, "version": version})
        case Update(id_, expected, fields):
            guard = {"_id": id_, "version": expected}
            return UpdateOne(guard, {"$set": {**fields, "version": version}})
        case Delete(id_, expected):
            return DeleteOne({"_id": id_, "version": expected})
