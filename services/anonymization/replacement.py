"""Replaces stored files by others of the same UIDs, so that no crash can lose one.

Orthanc does not store a file over another (OverwriteInstances is off), so the old one has to go
first. Until the new one is stored, it is kept in MongoDB (GridFS): whatever ends the process
between the two, `finish` stores it. A backup that is made between the two has it as well.
"""

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager, suppress
from tempfile import SpooledTemporaryFile
from typing import Any, BinaryIO, cast

from gridfs.asynchronous import AsyncGridFSBucket
from pymongo.asynchronous.database import AsyncDatabase

from models import REPLACEMENTS, JobDocument
from services.database import translated_database_faults
from services.errors import Error, OrthancNotFound
from services.jobs.handler import JobError, RunningJob
from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient
from services.study_files import SourceChanged, StudyFiles
from services.sync.lease import pause_of_replacements

_SPOOL_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 1024 * 1024


class ReplacementUnfinished(JobError):
    """An old file is gone, and the new one is kept in MongoDB until it can be stored."""

    code = "REPLACEMENT_UNFINISHED"
    default_message = (
        "A file was taken out of Orthanc and its modified form could not be stored yet. Nothing is "
        "lost: it is kept in the database. Look why Orthanc refuses it, then retry the job."
    )
    may_pass = True


class Replacements:
    """Files on their way into Orthanc, in the place of others.

    Args:
        database: Keeps the new files until they are stored.
        orthanc: Where the old ones are deleted.
        files: Stores the new ones.
    """

    def __init__(
        self, database: AsyncDatabase[dict[str, Any]], orthanc: OrthancClient, files: StudyFiles
    ) -> None:
        self._kept = database[f"{REPLACEMENTS}.files"]
        self._jobs = database[JobDocument.Settings.name]
        self._bucket = AsyncGridFSBucket(database, bucket_name=REPLACEMENTS)
        self._pause = pause_of_replacements(database)
        self._orthanc = orthanc
        self._files = files

    async def replace(self, stored: StoredFile, file: BinaryIO, job: RunningJob) -> None:
        """Replace a stored file.

        Args:
            stored: The old one.
            file: The new one, of the same instance.
            job: Finishes the replacement when this attempt can't.

        Raises:
            ReplacementUnfinished: The old file is gone; `finish` stores the new one.
            SourceChanged: Somebody else replaced the old file, and theirs stays.
            Error: It is not replaced, and the old file is there.
        """
        with translated_database_faults():
            kept_id = await self._bucket.upload_from_stream(
                stored.instance_id, file, metadata={"job": job.id, "revision": stored.revision}
            )
        file.seek(0)
        is_done = await self._exchange(stored.instance_id, stored.revision, file, job)
        with translated_database_faults():
            await self._bucket.delete(kept_id)
        if not is_done:
            raise SourceChanged

    async def finish(self, job: RunningJob) -> None:
        """Store the files that attempts before this one have left on their way.

        Those of jobs that are not kept any more are stored as well.

        Raises:
            ReplacementUnfinished: One could not be stored.
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            others = set(await self._kept.distinct("metadata.job")) - {job.id}
            known = await self._jobs.distinct("_id", {"_id": {"$in": sorted(others)}})
        await self.finish_those_of({job.id, *others.difference(known)}, job)

    async def finish_those_of(self, job_ids: Collection[str], job: RunningJob | None) -> None:
        """Store the files that some jobs have left on their way; arguments and errors: `finish`."""
        with translated_database_faults():
            left = await self._kept.find({"metadata.job": {"$in": sorted(job_ids)}}).to_list()
        for kept in left:
            # Whether the old one was deleted already, and this one stored, is unknown.
            async with self._opened(kept["_id"]) as file:
                await self._exchange(kept["filename"], kept["metadata"]["revision"], file, job)
            with translated_database_faults():
                await self._bucket.delete(kept["_id"])

    async def _exchange(
        self, instance_id: str, revision: str, file: BinaryIO, job: RunningJob | None
    ) -> bool:
        """Put a file in the place of the one of a revision.

        Returns:
            False when there is a third one, which stays: this file itself, stored by an attempt
            that ended then, or what somebody else has stored meanwhile.
        """
        await self._pause.until_free()
        try:
            stored = await self._orthanc.stored_files([instance_id])
            if any(one.revision != revision for one in stored):
                return False
            with suppress(OrthancNotFound):
                await self._orthanc.delete("instances", instance_id)
            await self._files.store(file, job)
        except Error as exc:
            raise ReplacementUnfinished(detail=f"{exc.code} {exc.detail}") from exc
        return True

    @asynccontextmanager
    async def _opened(self, kept_id: object) -> AsyncIterator[BinaryIO]:
        with SpooledTemporaryFile(max_size=_SPOOL_BYTES) as spooled:
            file = cast("BinaryIO", spooled)
            with translated_database_faults():
                stream = await self._bucket.open_download_stream(kept_id)
                while chunk := await stream.read(_CHUNK_BYTES):
                    file.write(chunk)
            file.seek(0)
            yield file
