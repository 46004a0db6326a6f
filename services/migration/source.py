"""The `instances` collection of the old system: one record per frame, many to a file."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pymongo import AsyncMongoClient, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConfigurationError

from services.database import translated_database_faults
from services.errors import InvalidInput
from services.orthanc.identifiers import OrthancIds

_COLLECTION = "instances"

_NOT_MIGRATED: Mapping[str, Any] = {
    "localFilePath": {"$type": "string", "$ne": ""},
    "orthancInstanceId": {"$in": [None, ""]},
}
"""Records with a local file and without an Orthanc id (an absent field counts as null)."""

_UPDATES_AT_ONCE = 1_000

_FILES_AT_ONCE = 10_000
"""Files of one query, which may have to look at every record that is left."""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file of the old system.

    Attributes:
        recorded_path: As its records have it.
        sop_instance_uids: Those of its records; more than one is a fault.
        records: Number of its records that are not migrated.
    """

    recorded_path: str
    sop_instance_uids: frozenset[str]
    records: int


@dataclass(frozen=True, slots=True)
class PathMap:
    """Replaces the beginning of recorded paths, for disks that moved.

    Attributes:
        replacements: Old and new beginnings; the first that fits is used.
    """

    replacements: Sequence[tuple[str, str]] = ()

    def resolve(self, recorded_path: str) -> Path:
        """Return where a file is now; whole folder names only are replaced."""
        for old, new in self.replacements:
            rest = recorded_path.removeprefix(old.rstrip("/"))
            if rest != recorded_path and rest.startswith("/"):
                return Path(new.rstrip("/") + rest)
        return Path(recorded_path)


@asynccontextmanager
async def open_source(url: str) -> AsyncIterator["LegacyInstances"]:
    """Connect to the old system's database.

    Args:
        url: With the database's name: `mongodb://host/name`.

    Raises:
        InvalidInput: The address names no database.
        DatabaseUnavailable: It does not answer.
    """
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(url, serverSelectionTimeoutMS=5_000)
    async with client:
        try:
            database = client.get_default_database()
        except ConfigurationError as exc:
            raise InvalidInput("Name the old database: mongodb://host/name.") from exc
        with translated_database_faults():
            await client.admin.command("ping")
        yield LegacyInstances(database[_COLLECTION])


class LegacyInstances:
    """Reads and updates the records."""

    def __init__(self, records: AsyncCollection[dict[str, Any]]) -> None:
        self._records = records

    async def count_files(self) -> int:
        """Return the number of files that are not migrated."""
        with translated_database_faults():
            cursor = await self._records.aggregate(
                [{"$match": _NOT_MIGRATED}, {"$group": {"_id": "$localFilePath"}}, {"$count": "n"}],
                allowDiskUse=True,
            )
            rows = await cursor.to_list()
        return int(rows[0]["n"]) if rows else 0

    async def files(self) -> AsyncIterator[LocalFile]:
        """Yield the files that are not migrated, in the order of their paths.

        Each page is a query of its own: a cursor would time out while large files are sent.
        """
        last = ""
        while page := await self._page(last):
            for row in page:
                uids = frozenset(uid for uid in row["uids"] if isinstance(uid, str) and uid)
                yield LocalFile(row["_id"], uids, row["records"])
            last = page[-1]["_id"]

    async def _page(self, last: str) -> list[dict[str, Any]]:
        behind = {**_NOT_MIGRATED, "localFilePath": {"$type": "string", "$gt": last}}
        with translated_database_faults():
            cursor = await self._records.aggregate(
                [
                    {"$match": behind},
                    {
                        "$group": {
                            "_id": "$localFilePath",
                            "uids": {"$addToSet": "$sopInstanceUID"},
                            "records": {"$sum": 1},
                        }
                    },
                    {"$sort": {"_id": 1}},
                    {"$limit": _FILES_AT_ONCE},
                ],
                allowDiskUse=True,
            )
            return await cursor.to_list()

    async def link(self, file: LocalFile, ids: OrthancIds, orthanc_url: str) -> int:
        """Set Orthanc's ids on every record of a file; doing it again changes nothing.

        All records of the file are numbered together, in the order of their instance numbers,
        which count the frames in the old system.

        Args:
            file: The file.
            ids: Where it is in Orthanc.
            orthanc_url: Address of Orthanc.

        Returns:
            Number of records.
        """
        with translated_database_faults():
            records = await self._records.find(
                {"localFilePath": file.recorded_path}, {"instanceNumber": 1, "orthancFrameIndex": 1}
            ).to_list()
            updates = [
                UpdateOne({"_id": record["_id"]}, {"$set": _link(ids, orthanc_url, frame_index)})
                for frame_index, record in enumerate(sorted(records, key=_frame_order))
            ]
            for start in range(0, len(updates), _UPDATES_AT_ONCE):
                await self._records.bulk_write(updates[start : start + _UPDATES_AT_ONCE])
        return len(records)


def _link(ids: OrthancIds, orthanc_url: str, frame_index: int) -> dict[str, Any]:
    return {
        "orthancInstanceId": ids.instance,
        "orthancStudyId": ids.study,
        "orthancSeriesId": ids.series,
        "orthancFrameIndex": frame_index,
        "orthancUrl": f"{orthanc_url.rstrip('/')}/instances/{ids.instance}",
        "useOrthancPreview": True,
    }


def _frame_order(record: Mapping[str, Any]) -> tuple[float, float, str]:
    """Order the records of a file: by frame index where one is set, else by instance number."""
    return (
        _number(record.get("orthancFrameIndex")),
        _number(record.get("instanceNumber")),
        str(record["_id"]),
    )


def _number(value: object) -> float:
    try:
        return float(value)  # type: ignore[arg-type]  # anything else is answered below
    except (TypeError, ValueError):
        return float("inf")
