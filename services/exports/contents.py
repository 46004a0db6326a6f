"""What an export holds, in MongoDB: written when its job ends, read by every process."""

import itertools
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import ExportPartDocument
from models.stored import stored_name
from services.database import translated_database_faults
from services.errors import NotFound
from services.jobs.handler import JobError

_JOB_ID = stored_name(ExportPartDocument.job_id)
_INSTANCE_IDS = stored_name(ExportPartDocument.instance_ids)

_FILES_OF_PART = 5_000
_BYTES_OF_PART = 8 * 1024 * 1024
"""Both well below MongoDB's 16 MB of a document."""

_TOGETHER = 200
"""Files that are read from the list at once: as many as Orthanc is asked about in one call."""


class ExportOutdated(JobError, NotFound):
    """A file was replaced or deleted: what was written about it may name another patient."""

    code = "EXPORT_OUTDATED"
    default_message = (
        "A file of this export was replaced or deleted after it was prepared. Start a new one."
    )
    may_pass = True


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """A file of an export.

    Attributes:
        name: Its path in the export.
        instance_id: Orthanc's identifier.
        revision: Of the stored file, when the export was prepared.
    """

    name: str
    instance_id: str
    revision: str


class ExportContents:
    """The lists of files of exports.

    Args:
        database: Where they are.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._parts = database[ExportPartDocument.Settings.name]

    async def write(
        self, job_id: str, files: list[ExportedFile], dicomdir: bytes, expires_at: datetime
    ) -> None:
        """Write what an export holds, in the place of what it held before.

        Args:
            job_id: Of its job.
            files: Its files, in their order.
            dicomdir: Its DICOMDIR; empty: it has none.
            expires_at: When MongoDB drops it.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        parts = max(1, -(-len(files) // _FILES_OF_PART), -(-len(dicomdir) // _BYTES_OF_PART))
        with translated_database_faults():
            await self._parts.delete_many({_JOB_ID: job_id})
            for number in range(parts):
                some = files[number * _FILES_OF_PART : (number + 1) * _FILES_OF_PART]
                part: ExportPartDocument = ExportPartDocument.model_construct(
                    id=f"{job_id}-{number}",
                    job_id=job_id,
                    number=number,
                    names=[file.name for file in some],
                    instance_ids=[file.instance_id for file in some],
                    revisions=[file.revision for file in some],
                    content=dicomdir[number * _BYTES_OF_PART : (number + 1) * _BYTES_OF_PART],
                    expires_at=expires_at,
                )
                await self._parts.insert_one(part.model_dump(by_alias=True))

    async def remove(self, job_id: str) -> None:
        """Remove what an export held."""
        with translated_database_faults():
            await self._parts.delete_many({_JOB_ID: job_id})

    async def files(self, job_id: str) -> AsyncIterator[Sequence[ExportedFile]]:
        """Iterate over the files of an export, at most 200 at a time.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        async for part in self._read(job_id, {"names": 1, _INSTANCE_IDS: 1, "revisions": 1}):
            parts = zip(part["names"], part[_INSTANCE_IDS], part["revisions"], strict=True)
            files = [ExportedFile(*one) for one in parts]
            for begin in range(0, len(files), _TOGETHER):
                yield files[begin : begin + _TOGETHER]

    async def dicomdir(self, job_id: str) -> AsyncIterator[bytes]:
        """Iterate over the pieces of an export's DICOMDIR; none when it has none."""
        async for part in self._read(job_id, {"content": 1}):
            if part["content"]:
                yield bytes(part["content"])

    async def _read(
        self, job_id: str, fields: Mapping[str, int]
    ) -> AsyncIterator[Mapping[str, Any]]:
        for number in itertools.count():
            # No cursor: it would expire while the reader takes its time.
            with translated_database_faults():
                part = await self._parts.find_one({"_id": f"{job_id}-{number}"}, fields)
            if part is None:
                return
            yield part
