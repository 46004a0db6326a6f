"""Exports written into a folder of the server."""

import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

from services.jobs.handler import JobError
from services.tasks import finish_in_thread

_MODE = 0o700
"""The files hold patient data: for the server's user alone, until somebody decides otherwise."""


class FolderNotWritable(JobError):
    """The folder of exports is missing, full or not ours."""

    code = "EXPORT_FOLDER_NOT_WRITABLE"
    default_message = (
        "The server can't write into EXPORT_FOLDER. Check that the folder is there, belongs to the "
        "server's user and has room."
    )


class ExportFolder:
    """A folder with a folder for each export, named after its job.

    Args:
        path: EXPORT_FOLDER.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    async def begin(self, job_id: str) -> None:
        """Make an empty folder for an export, in the place of what an attempt before has left.

        Raises:
            FolderNotWritable: It can't be made.
        """
        await self.remove(job_id)
        await self._do(lambda: self._unfinished(job_id).mkdir(_MODE))

    async def write(
        self, job_id: str, name: str, opened: AbstractAsyncContextManager[AsyncIterator[bytes]]
    ) -> None:
        """Write a file of an export.

        Args:
            job_id: Of the export.
            name: Its path in the export.
            opened: Its content.

        Raises:
            FolderNotWritable: It can't be written.
            Error: The content can't be read.
        """
        path = self._unfinished(job_id) / name
        try:
            await finish_in_thread(lambda: path.parent.mkdir(_MODE, parents=True, exist_ok=True))
            with await finish_in_thread(path.open, "wb") as file:
                async with opened as chunks:
                    async for chunk in chunks:
                        await finish_in_thread(file.write, chunk)
        except OSError as exc:
            raise FolderNotWritable(detail=type(exc).__name__) from exc

    async def finish(self, job_id: str) -> None:
        """Give the folder of an export its name: what has it is complete.

        Raises:
            FolderNotWritable: It can't be renamed.
        """
        await self._do(lambda: self._unfinished(job_id).rename(self._path / job_id))

    async def remove(self, job_id: str) -> None:
        """Remove an export that is there, complete or not.

        Raises:
            FolderNotWritable: It can't be removed.
        """

        def remove() -> None:
            for path in (self._unfinished(job_id), self._path / job_id):
                if path.exists():
                    shutil.rmtree(path)

        await self._do(remove)

    def _unfinished(self, job_id: str) -> Path:
        return self._path / f".{job_id}.part"

    @staticmethod
    async def _do(work: Callable[[], object]) -> None:
        try:
            await finish_in_thread(work)
        except OSError as exc:
            raise FolderNotWritable(detail=type(exc).__name__) from exc
