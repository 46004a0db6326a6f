"""The `instances` collection of the old system: one record per frame, many to a file."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from pymongo import AsyncMongoClient, UpdateOne
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import ConfigurationError

from services.database import translated_database_faults
from services.errors import DatabaseUnavailable, InvalidInput
from services.migration.local_files import (
    LocalFile,
    all_record_ids,
    count_local_files,
    local_files,
)
from services.orthanc.identifiers import OrthancIds

_COLLECTION = "instances"

_UPDATES_AT_ONCE = 1_000

_OLD_IS_AWAY = "The old database does not answer. Check --source and that its MongoDB runs."


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
        try:
            with translated_database_faults():
                await client.admin.command("ping")
        except DatabaseUnavailable as exc:
            raise DatabaseUnavailable(_OLD_IS_AWAY, detail=exc.detail) from exc
        yield LegacyInstances(database[_COLLECTION])


class LegacyInstances:
    """Reads and updates the records."""

    def __init__(self, records: AsyncCollection[dict[str, Any]]) -> None:
        self._records = records

    async def count_files(self) -> int:
        """Return the number of files that are not migrated.

        Raises:
            DatabaseUnavailable: The old database does not answer.
        """
        return await count_local_files(self._records)

    def files(self) -> AsyncIterator[LocalFile]:
        """Yield the files that are not migrated; see `local_files`."""
        return local_files(self._records)

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

        Raises:
            DatabaseUnavailable: The old database does not answer; it may be half done.
        """
        record_ids = file.record_ids
        if file.is_partly_linked:
            record_ids = await all_record_ids(self._records, file.recorded_path)
        for start in range(0, len(record_ids), _UPDATES_AT_ONCE):
            chunk = record_ids[start : start + _UPDATES_AT_ONCE]
            updates = [
                UpdateOne({"_id": record_id}, {"$set": _link(ids, orthanc_url, frame_index)})
                for frame_index, record_id in enumerate(chunk, start)
            ]
            with translated_database_faults():
                await self._records.bulk_write(updates, ordered=False)
        return len(record_ids)


def _link(ids: OrthancIds, orthanc_url: str, frame_index: int) -> dict[str, Any]:
    return {
        "orthancInstanceId": ids.instance,
        "orthancStudyId": ids.study,
        "orthancSeriesId": ids.series,
        "orthancFrameIndex": frame_index,
        "orthancUrl": f"{orthanc_url.rstrip('/')}/instances/{ids.instance}",
        "useOrthancPreview": True,
    }
