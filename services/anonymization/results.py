"""The study that a job makes, from its first file to its last.

It is claimed before its first file is stored, kept when the job returns, and removed when the job
ends cancelled or failed, unless somebody else relies on it.
"""

from collections.abc import Collection, Mapping
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import JobDocument
from models.stored import stored_name
from services.database import translated_database_faults
from services.deletion import Deletion
from services.jobs.handler import RunningJob
from services.study_files import StudyFiles

_RESULT_STUDY_IDS = stored_name(JobDocument.result_study_ids)
_FINISHED_AT = stored_name(JobDocument.finished_at)

RESULT = "result"
_IS_NEW = "isNew"
"""Keys of the checkpoint: the study that is made, and whether the job may remove it."""


class Results:
    """Studies that jobs make.

    Args:
        files: Knows what is stored.
        database: Where the jobs are.
        deletion: Removes what was made.
    """

    def __init__(
        self, files: StudyFiles, database: AsyncDatabase[dict[str, Any]], deletion: Deletion
    ) -> None:
        self._files = files
        self._jobs = database[JobDocument.Settings.name]
        self._deletion = deletion

    async def claim(self, job: RunningJob, result: str, more: Mapping[str, Any]) -> None:
        """Note which study a job makes, and whether it was not there before; the first time counts.

        Args:
            job: The job.
            result: Orthanc's identifier of the study.
            more: What else the checkpoint holds.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        if not job.checkpoint:
            is_there = await self._files.is_indexed(result) or await self._files.held(result)
            await job.save({**more, RESULT: result, _IS_NEW: not is_there})

    async def keep(self, job: RunningJob) -> None:
        """Keep what was made so far, whatever becomes of the job: it is shown as its result."""
        if job.checkpoint[_IS_NEW]:
            await job.save({**job.checkpoint, _IS_NEW: False})

    async def remove(self, job: RunningJob, made: Collection[str] | None = None) -> bool:
        """Remove what a job has made and has not kept; return whether it did so.

        Nothing is removed of a study that another job made or makes as well.

        Args:
            job: The job.
            made: Orthanc's identifiers of the files that it can have made: all others stay. None:
                nobody else can have stored a file in the study.

        Raises:
            OrthancUnavailable: Orthanc does not answer.
            DatabaseUnavailable: MongoDB does not answer.
        """
        if not job.checkpoint.get(_IS_NEW) or await self._is_of_others(job):
            return False
        held = (await self._files.held(job.checkpoint[RESULT])).keys()
        await self._deletion.delete_instances(held if made is None else held & set(made))
        return True

    async def _is_of_others(self, job: RunningJob) -> bool:
        """Return whether another job, since this one was started, made or makes the same study."""
        result = job.checkpoint[RESULT]
        with translated_database_faults():
            other = await self._jobs.find_one(
                {
                    "_id": {"$ne": job.id},
                    "$or": [{_RESULT_STUDY_IDS: result}, {f"checkpoint.{RESULT}": result}],
                    # None as well.
                    _FINISHED_AT: {"$not": {"$lt": job.created_at}},
                },
                {"_id": 1},
            )
        return other is not None
