"""The files that the old records name, read in one pass over all records.

The old database may have no index on the paths, and gets none: MongoDB sorts the records once, on
its disk where they are many, and here are those of one file at a time.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.command_cursor import AsyncCommandCursor
from pymongo.errors import CursorNotFound

from services.database import translated_database_faults

_Record = Mapping[str, Any]
_Collection = AsyncCollection[dict[str, Any]]
_FrameOrder = tuple[float, float, str]
"""Frame index, instance number and id, infinite where it is missing."""

_HAS_PATH: _Record = {"$type": "string", "$ne": ""}

_NOT_MIGRATED: _Record = {"orthancInstanceId": {"$in": [None, ""]}}
"""Records without an Orthanc id (an absent field counts as null)."""

_IS_NOT_MIGRATED: _Record = {"$eq": [{"$ifNull": ["$orthancInstanceId", ""]}, ""]}
"""The same as an expression."""

_READ = ("localFilePath", "sopInstanceUID", "instanceNumber", "orthancFrameIndex")

_MISSING = float("inf")

_RECORDS_AT_ONCE = 5_000
"""Records of one answer, 1 MB. MongoDB forgets a cursor after ten minutes without a question."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of the old system.

    Attributes:
        recorded_path: As its records have it.
        sop_instance_uids: Those of its records; more than one is a fault.
        record_ids: `_id` of its records that are not migrated, in the order of their frames.
        is_partly_linked: Other records of it are migrated: a run was stopped among them.
    """

    recorded_path: str
    sop_instance_uids: frozenset[str]
    record_ids: Sequence[Any]
    is_partly_linked: bool = False


@dataclass(slots=True)
class _Gathered:
    """The records of one path that came until now."""

    path: str
    sop_instance_uids: set[str] = field(default_factory=set)
    ordered: list[tuple[_FrameOrder, Any]] = field(default_factory=list)

    def add(self, record: _Record) -> None:
        uid = record.get("sopInstanceUID")
        if isinstance(uid, str) and uid:
            self.sop_instance_uids.add(uid)
        self.ordered.append((_frame_order(record), record["_id"]))

    def record_ids(self) -> Sequence[Any]:
        # Single frame indices are what a stopped run left: the records are numbered as it did.
        has_indices = all(order[0] < _MISSING for order, _ in self.ordered)
        self.ordered.sort(key=lambda one: one[0] if has_indices else one[0][1:])
        return [record_id for _, record_id in self.ordered]


async def count_local_files(records: _Collection) -> int:
    """Return the number of files that are not migrated.

    Raises:
        DatabaseUnavailable: The old database does not answer.
    """
    counted: list[_Record] = [{"$group": {"_id": "$localFilePath"}}, {"$count": "files"}]
    with translated_database_faults():
        cursor = await _aggregate(records, [_match(_NOT_MIGRATED), *counted])
        rows = await cursor.to_list()
    return int(rows[0]["files"]) if rows else 0


async def local_files(records: _Collection) -> AsyncIterator[LocalFile]:
    """Yield the files that are not migrated, in the order of their paths.

    Where MongoDB forgets the cursor, because large files took long to send, it sorts again what is
    left.

    Raises:
        DatabaseUnavailable: The old database does not answer.
    """
    partly_linked = await _partly_linked(records)
    last = ""
    while True:
        try:
            async for gathered in _gathered_behind(records, last):
                last = gathered.path
                yield LocalFile(
                    last,
                    frozenset(gathered.sop_instance_uids),
                    gathered.record_ids(),
                    is_partly_linked=last in partly_linked,
                )
        except _CursorForgotten:
            continue
        return


async def all_record_ids(records: _Collection, path: str) -> Sequence[Any]:
    """Return the records of a file in the order of its frames, also those that are migrated.

    MongoDB may have to look at all records for it.

    Raises:
        DatabaseUnavailable: The old database does not answer.
    """
    gathered = _Gathered(path)
    with translated_database_faults():
        async for record in records.find({"localFilePath": path}, dict.fromkeys(_READ, 1)):
            gathered.add(record)
    return gathered.record_ids()


class _CursorForgotten(Exception):  # internal to this module
    pass


async def _partly_linked(records: _Collection) -> set[str]:
    """Return the paths with records of both kinds: as many as one stopped run had in hand."""
    grouped = {
        "_id": "$localFilePath",
        "some": {"$max": _IS_NOT_MIGRATED},
        "all": {"$min": _IS_NOT_MIGRATED},
    }
    mixed: list[_Record] = [{"$group": grouped}, {"$match": {"some": True, "all": False}}]
    with translated_database_faults():
        cursor = await _aggregate(records, [_match({}), *mixed])
        return {row["_id"] async for row in cursor}


async def _gathered_behind(records: _Collection, path: str) -> AsyncIterator[_Gathered]:
    gathered: _Gathered | None = None
    async for record in _sorted_behind(records, path):
        if gathered is None or gathered.path != record["localFilePath"]:
            if gathered is not None:
                yield gathered
            gathered = _Gathered(record["localFilePath"])
        gathered.add(record)
    if gathered is not None:
        yield gathered


async def _sorted_behind(records: _Collection, path: str) -> AsyncIterator[_Record]:
    by_path: list[_Record] = [
        {"$project": dict.fromkeys(_READ, 1)},
        {"$sort": {"localFilePath": 1}},
    ]
    with translated_database_faults():
        cursor = await _aggregate(records, [_match(_NOT_MIGRATED, behind=path), *by_path])
    async with cursor:
        while page := await _page(cursor):
            for record in page:
                yield record


async def _page(cursor: AsyncCommandCursor[dict[str, Any]]) -> list[dict[str, Any]]:
    with translated_database_faults():
        try:
            return await cursor.to_list(_RECORDS_AT_ONCE)
        except CursorNotFound as exc:
            raise _CursorForgotten from exc


async def _aggregate(
    records: _Collection, stages: Sequence[_Record]
) -> AsyncCommandCursor[dict[str, Any]]:
    return await records.aggregate(
        stages,
        allowDiskUse=True,
        batchSize=_RECORDS_AT_ONCE,
        # The collection may have an order of its own, in which two paths are the same.
        collation={"locale": "simple"},
    )


def _match(condition: _Record, *, behind: str = "") -> _Record:
    return {"$match": {"localFilePath": {**_HAS_PATH, "$gt": behind}, **condition}}


def _frame_order(record: _Record) -> _FrameOrder:
    return (
        _number(record.get("orthancFrameIndex")),
        _number(record.get("instanceNumber")),
        str(record["_id"]),
    )


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # anything else is answered below
    except (TypeError, ValueError):
        return _MISSING
