"""Reading one instance of each parent that is missing, for what its header says of the parent."""

from collections.abc import Iterable
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from services.ingest.indexer import Indexer
from services.orthanc.client import OrthancClient
from services.sync.faults import IndexFaults
from services.sync.indexing import index_each
from services.sync.reading import read_entries
from services.sync.reconciling import Reconciliation


class Samples:
    """Reads instances although they are indexed, and indexes them with their parents.

    Attributes:
        faults: What can't be indexed, nor read again.
    """

    def __init__(
        self,
        orthanc: OrthancClient,
        database: AsyncDatabase[dict[str, Any]],
        indexer: Indexer,
        *,
        frame_max_pixels: int,
    ) -> None:
        self.faults = IndexFaults(database)
        self._orthanc = orthanc
        self._indexer = indexer
        self._frame_max_pixels = frame_max_pixels

    async def reconcile(self, instance_ids: Iterable[str]) -> Reconciliation:
        """Read instances and write their parents; puts on record which can't be read.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        files = await self._orthanc.stored_files(list(instance_ids))
        reading = await read_entries(self._orthanc, files, frame_max_pixels=self._frame_max_pixels)
        faults = reading.faults | await index_each(self._indexer, reading.entries)
        await self.faults.record(files, faults)
        return Reconciliation(faults=faults)
