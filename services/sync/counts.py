"""Compares the numbers of stored and indexed instances, a cheap sign of missed changes."""

import asyncio
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, StudyDocument
from models.stored import stored_name
from services.database import CollectionCount, translated_database_faults
from services.orthanc.client import OrthancClient
from services.sync.faults import IndexFaults, of_these
from services.sync.follower import NEW_INSTANCE
from services.sync.reconciler import batches

_NUMBER_OF_INSTANCES = stored_name(StudyDocument.number_of_instances)


_READINGS = 4
_PAUSE_SECONDS = 0.7
"""Pauses between counts, in all longer than the feed takes to index recent arrivals."""

_PAGE_CHANGES = 1_000
_PAGE_FILES = 1_000
"""Instances in one call: an answer of a megabyte."""

_MAX_PAGES = 5
"""So many changes within seconds are more than Orthanc can store."""


class CountCheck:
    """Checks whether a deletion within a study, or a loss, was missed."""

    def __init__(
        self,
        orthanc: OrthancClient,
        database: AsyncDatabase[dict[str, Any]],
        faults: IndexFaults,
    ) -> None:
        self._orthanc = orthanc
        self._faults = faults
        self._studies = database[StudyDocument.Settings.name]
        self._instances = database[InstanceDocument.Settings.name]
        self.indexed = CollectionCount(self._instances)

    async def differs(self, *, is_exact: bool = True) -> bool:
        """Compare the numbers of instances, without those that are recorded as faults.

        While instances arrive the index is always a little behind, which would hide as many
        deletions, so recent arrivals are then left out on both sides.

        Args:
            is_exact: Add up the counts of all studies. Otherwise use MongoDB's own count, which
                costs the same however many there are.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        begin = (await self._orthanc.newest_change()).last
        held_before_at_most: float = float("inf")
        indexed_before_at_least: float = 0
        for _ in range(_READINGS):
            arrived = await self._arrived_since(begin)
            faulty = await self._held_and_faulty()
            held = (await self._orthanc.statistics()).instances - len(faulty)
            # These are among the held; more may have come since.
            held_before_at_most = min(held_before_at_most, held - len(arrived - faulty))
            indexed = await (self._add_up() if is_exact else self.indexed.read())
            arrived = await self._arrived_since(begin)
            if indexed == held and not arrived - faulty:
                return False
            indexed_before_at_least = max(
                indexed_before_at_least, indexed - len(await self._indexed_among(arrived))
            )
            if arrived and indexed_before_at_least > held_before_at_most:
                return True
            await asyncio.sleep(_PAUSE_SECONDS)
        return not arrived

    async def _add_up(self) -> int:
        with translated_database_faults():
            cursor = await self._studies.aggregate(
                [{"$group": {"_id": None, "total": {"$sum": f"${_NUMBER_OF_INSTANCES}"}}}]
            )
            groups = await cursor.to_list()
        return int(groups[0]["total"]) if groups else 0

    async def _held_and_faulty(self) -> set[str]:
        """Return the faulty instances that Orthanc has, with one call for each thousand."""
        on_record = await self._faults.on_record()
        found: set[str] = set()
        for ids in batches((fault.instance_id for fault in on_record), _PAGE_FILES):
            files = await self._orthanc.stored_files(ids)
            found |= {fault.instance_id for fault in of_these(files, on_record)}
        # What is indexed with an earlier file counts on both sides.
        return found - await self._indexed_among(found) if found else found

    async def _arrived_since(self, sequence: int) -> set[str]:
        arrived: set[str] = set()
        for _ in range(_MAX_PAGES):
            page = await self._orthanc.changes(sequence, _PAGE_CHANGES)
            arrived |= {c.resource_id for c in page.changes if c.change_type == NEW_INSTANCE}
            if page.is_last_page or not page.changes:
                break
            sequence = page.last
        return arrived

    async def _indexed_among(self, instance_ids: set[str]) -> set[str]:
        with translated_database_faults():
            found = self._instances.find({"_id": {"$in": list(instance_ids)}}, {"_id": 1})
            return {instance["_id"] async for instance in found}
