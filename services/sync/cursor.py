"""The cursor of Orthanc's change feed, kept in MongoDB and guarded by the lease's token."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self

from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from models.feed_cursor import FeedCursorDocument
from services.database import translated_database_faults
from services.orthanc.answers import Change, ChangePage
from services.sync.lease import LeaseLost

_CURSOR = "changes"

NEW_INSTANCE = "NewInstance"
"""The change that tells of an arrival; all others follow from it."""


@dataclass(frozen=True, slots=True)
class FeedPosition:
    """A place in the change feed.

    Attributes:
        sequence: Sequence number of the last change that is applied.
        change_date: Orthanc's date of that change, `""` when it is not known.
        resource_id: What that change was about, `""` when it is not known.
    """

    sequence: int
    change_date: str = ""
    resource_id: str = ""

    @classmethod
    def after(cls, page: ChangePage) -> Self:
        """Return the position after a page."""
        if not page.changes:
            return cls(sequence=page.last)
        newest = page.changes[-1]
        return cls(max(page.last, newest.sequence), newest.date, newest.resource_id)

    def is_contradicted_by(self, change: Change) -> bool:
        """Tell whether a change of this number is another one: Orthanc's database is not ours."""
        return bool(self.change_date) and (
            (self.change_date, self.resource_id) != (change.date, change.resource_id)
        )


class FeedCursor:
    """Reads and moves the cursor."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._cursors = database[FeedCursorDocument.Settings.name]

    @property
    def election(self) -> object:
        """What made MongoDB's present primary one; None while there is none, or behind a mongos.

        PyMongo knows it: nothing is asked.
        """
        servers = self._cursors.database.client.topology_description.server_descriptions()
        primaries = (server for server in servers.values() if server.is_writable)
        return next((primary.election_id for primary in primaries), None)

    async def read(self) -> FeedPosition | None:
        """Return the position, None when nothing was ever followed.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            stored = await self._cursors.find_one({"_id": _CURSOR})
        if stored is None:
            return None
        return FeedPosition(
            sequence=stored["sequence"],
            change_date=stored["changeDate"],
            resource_id=stored["resourceID"],
        )

    async def claim(self, token: int) -> FeedPosition | None:
        """Shut out every former holder of the lease and return the position.

        Args:
            token: Fencing token of the lease.

        Raises:
            LeaseLost: A later holder has claimed it.
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            claimed = await self._cursors.update_one(
                {"_id": _CURSOR, "token": {"$lte": token}}, {"$set": {"token": token}}
            )
        position = await self.read()
        if position is not None and not claimed.matched_count:
            raise LeaseLost
        return position

    async def move(self, position: FeedPosition, token: int) -> None:
        """Move the cursor, because everything up to a position is applied.

        Args:
            position: The new position; smaller than the old one when Orthanc was replaced.
            token: Fencing token of the lease.

        Raises:
            LeaseLost: A later holder has claimed the cursor; it was not moved.
            DatabaseUnavailable: MongoDB does not answer.
        """
        moved = {
            "sequence": position.sequence,
            "changeDate": position.change_date,
            "resourceID": position.resource_id,
            "token": token,
            "movedAt": datetime.now(UTC),
        }
        with translated_database_faults():
            try:
                await self._cursors.update_one(
                    {"_id": _CURSOR, "token": {"$lte": token}}, {"$set": moved}, upsert=True
                )
            except DuplicateKeyError as exc:
                # A cursor with a greater token stands there: the upsert tried to insert another.
                raise LeaseLost from exc
