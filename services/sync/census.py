"""Counting instances on both sides, also while they arrive without pause."""

import asyncio
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models.instance import InstanceDocument
from models.study import StudyDocument
from services.database import translated_database_faults
from services.orthanc.client import OrthancClient
from services.sync.cursor import NEW_INSTANCE

_READINGS = 4
_PAUSE_SECONDS = 0.7
"""Together longer than the feed takes to index what has just arrived."""

_PAGE_CHANGES = 1_000
_MAX_PAGES = 5
"""So many changes within seconds are more than Orthanc can store."""


class Census:
    """Tells whether some deletion or loss within a study was not seen."""

    def __init__(self, orthanc: OrthancClient, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._orthanc = orthanc
        self._studies = database[StudyDocument.Settings.name]
        self._instances = database[InstanceDocument.Settings.name]

    async def differs(self) -> bool:
        """Compare the numbers of instances.

        While instances arrive the index is always a little behind, and that hides as many
        deletions. So what arrived since the beginning is left out on both sides then.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        begin = (await self._orthanc.newest_change()).last
        held_before_at_most: float = float("inf")
        indexed_before_at_least: float = 0
        for _ in range(_READINGS):
            arrived = await self._arrived_since(begin)
            held = (await self._orthanc.statistics()).instances
            # These are among the held; more may have come since.
            held_before_at_most = min(held_before_at_most, held - len(arrived))
            indexed = await self.count_indexed()
            arrived = await self._arrived_since(begin)
            if indexed == held and not arrived:
                return False
            indexed_before_at_least = max(
                indexed_before_at_least, indexed - await self._count_among(arrived)
            )
            if arrived and indexed_before_at_least > held_before_at_most:
                return True
            await asyncio.sleep(_PAUSE_SECONDS)
        return not arrived

    async def count_indexed(self) -> int:
        """Return the number of instances as our studies say.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            cursor = await self._studies.aggregate(
                [{"$group": {"_id": None, "total": {"$sum": "$numberOfInstances"}}}]
            )
            groups = await cursor.to_list()
        return int(groups[0]["total"]) if groups else 0

    async def _arrived_since(self, sequence: int) -> set[str]:
        arrived: set[str] = set()
        for _ in range(_MAX_PAGES):
            page = await self._orthanc.changes(sequence, _PAGE_CHANGES)
            arrived |= {c.resource_id for c in page.changes if c.change_type == NEW_INSTANCE}
            if page.is_last_page or not page.changes:
                break
            sequence = page.last
        return arrived

    async def _count_among(self, instance_ids: set[str]) -> int:
        with translated_database_faults():
            return await self._instances.count_documents({"_id": {"$in": list(instance_ids)}})
