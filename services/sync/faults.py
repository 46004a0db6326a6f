"""Records instances that can't be indexed; they are skipped for a while and tried again later."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pymongo import UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from models import IndexFaultDocument
from models.stored import stored_name
from services.database import translated_database_faults
from services.index.record import to_stored_precision
from services.orthanc.answers import StoredFile

_FAILED_AT = stored_name(IndexFaultDocument.failed_at)
_RETRY_AT = stored_name(IndexFaultDocument.retry_at)


MAX_ATTEMPTS = 3
"""An instance that fails so often is skipped for a while."""

_HOUR_MS = 3_600_000
_PAUSES_MS = (0, 0, 0, _HOUR_MS, 4 * _HOUR_MS, 24 * _HOUR_MS)
"""How long a file is skipped, by the number of its failures; the last value for all further ones.
The first failures may be a temporary problem of Orthanc's disk. Reading a file that times out takes
half a minute, and one that crashes Orthanc makes it unavailable for all."""


@dataclass(frozen=True, slots=True)
class IndexFault:
    """An instance that could not be indexed.

    Attributes:
        revision: Of the file that failed.
        reason: For the log and for users.
    """

    instance_id: str
    revision: str
    reason: str


class IndexFaults:
    """Stores which instances could not be indexed, and why. A replaced file starts again at one."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._faults = database[IndexFaultDocument.Settings.name]

    async def record(
        self, files: Iterable[StoredFile], reasons: Mapping[str, str], *, least_attempts: int = 1
    ) -> None:
        """Count a failure of each file that has a reason.

        Args:
            files: As Orthanc has them, including the faulty ones.
            reasons: By instance id.
            least_attempts: Count at least so many, so that they are not tried again soon.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        now = datetime.now(UTC)
        writes = [
            UpdateOne(
                {"_id": file.instance_id},
                _failed(file, reasons[file.instance_id], least_attempts, now),
                upsert=True,
            )
            for file in files
            if file.instance_id in reasons
        ]
        if writes:
            with translated_database_faults():
                await self._faults.bulk_write(writes, ordered=False)

    async def passed_by(self, files: Sequence[StoredFile]) -> set[str]:
        """Return the instances whose present file failed so often that it has to wait.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        waiting = await self._find(
            {
                "_id": {"$in": [file.instance_id for file in files]},
                _RETRY_AT: {"$gt": datetime.now(UTC)},
            }
        )
        return {fault.instance_id for fault in of_these(files, waiting)}

    async def due(self, at: datetime, limit: int) -> list[str]:
        """Return instances whose pause is over and that did not fail after a time.

        Args:
            at: In UTC.
            limit: Most of them.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        # A record of an earlier release has no `retryAt`.
        is_due = {_FAILED_AT: {"$lt": to_stored_precision(at)}, _RETRY_AT: {"$not": {"$gt": at}}}
        return [fault.instance_id for fault in await self._find(is_due, limit)]

    async def on_record(self) -> list[IndexFault]:
        """Return all records, also of files that were indexed or deleted since.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        return await self._find({})

    async def count(self) -> int:
        """Return the number of recorded instances.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            return await self._faults.count_documents({})

    async def settle(self, instance_ids: Sequence[str], since: datetime) -> None:
        """Delete the records of instances that were tried again and did not fail.

        Args:
            instance_ids: The instances that were tried.
            since: When they were tried, in UTC.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        before = {"$lt": to_stored_precision(since)}
        with translated_database_faults():
            await self._faults.delete_many({"_id": {"$in": instance_ids}, _FAILED_AT: before})

    async def make_due(self) -> None:
        """Make all instances due, as if they had never failed.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            await self._faults.update_many(
                {}, {"$set": {"attempts": 0, _RETRY_AT: datetime.now(UTC)}}
            )

    async def _find(self, condition: Mapping[str, Any], limit: int = 0) -> list[IndexFault]:
        with translated_database_faults():
            found = self._faults.find(condition, {"revision": 1, "reason": 1}, limit=limit)
            return [
                IndexFault(fault["_id"], fault["revision"], fault["reason"])
                async for fault in found
            ]


def of_these(files: Iterable[StoredFile], faults: Iterable[IndexFault]) -> list[IndexFault]:
    """Return the faults of the present files, without those of files that were replaced."""
    revisions = {file.instance_id: file.revision for file in files}
    return [fault for fault in faults if revisions.get(fault.instance_id) == fault.revision]


def _failed(
    file: StoredFile, reason: str, least_attempts: int, now: datetime
) -> list[dict[str, Any]]:
    is_same_file = {"$eq": ["$revision", file.revision]}
    counted = {"$cond": [is_same_file, {"$add": ["$attempts", 1]}, 1]}
    pause_index = {"$min": ["$attempts", len(_PAUSES_MS) - 1]}
    return [
        {
            "$set": {
                "attempts": {"$max": [counted, least_attempts]},
                "revision": file.revision,
                # A literal: a reason may begin with a dollar sign.
                "reason": {"$literal": reason},
                _FAILED_AT: now,
            }
        },
        {"$set": {_RETRY_AT: {"$add": [now, {"$arrayElemAt": [list(_PAUSES_MS), pause_index]}]}}},
    ]
