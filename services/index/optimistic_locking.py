"""Writes parent documents by compare-and-set on their `version`, until all writes succeed.

It is correct across processes without transactions: a process that writes children rolls up their
parent afterwards, and a parent is written only if its version is still the one that was read before
its children. So the last process that wrote a parent had seen every child.
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
    """Insert a document that does not exist, unless another process did so first."""

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
    """Remove a document without children if it still has the version that was read."""

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
    """Decide which write updates a document to its content.

    Args:
        document_id: Its `_id`.
        current: The document as read before its children; None when it did not exist.
        content: The fields that it should have; None when it has no children.
        on_insert: Additional fields of a new document; None: none can be inserted, because its
            attributes are not known.
        on_change: Additional fields that are written when the content changed.
        must_touch: Children were written: the version must change even when the content does not,
            so that a process that aggregated before does not overwrite the document.

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
"""Each lost race means that another process won it: with ten processes a few are usual."""

_JITTER_SECONDS = 0.01
_DUPLICATE_KEY = 11000


class Level(Protocol):
    """Series, studies or patients: where they are stored and how their content is computed."""

    @property
    def documents(self) -> Documents:
        """The collection."""
        ...

    async def read_content(self, ids: Collection[str]) -> Mapping[str, Fields]:
        """Compute the content of parents from their children; those without are left out."""
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
    """Update the documents of a level to the content computed from their stored children.

    Args:
        level: Series, studies or patients.
        ids: Which documents, by `_id`.
        children_written: The caller wrote children, so versions must change (`must_touch`).
        known: Documents by `_id` that were read before the children; None: they are read here.
        dry_run: Write nothing.

    Returns:
        The ids of the documents that were written or removed, or would be in a dry run.

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
        # An absent document has no version to compare. If its children changed while they were
        # read, only reading them again shows it.
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
    """Perform the writes and return the ids of those that lost their race."""
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
