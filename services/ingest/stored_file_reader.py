"""Ask Orthanc what it stored: one call for all files that are asked about at the same time."""

import asyncio

from services.errors import OrthancNotFound
from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient

_MAX_BATCH = 200


class StoredFileReader:
    """Reads what is stored of instances; an HTTP request each costs a third of an upload."""

    def __init__(self, orthanc: OrthancClient) -> None:
        self._orthanc = orthanc
        self._waiting: list[tuple[str, asyncio.Future[StoredFile]]] = []
        self._worker: asyncio.Task[None] | None = None

    async def read(self, instance_id: str) -> StoredFile:
        """Return what is stored of one instance.

        Raises:
            OrthancNotFound: There is no such instance.
            OrthancError: As `OrthancClient.stored_files`.
        """
        done: asyncio.Future[StoredFile] = asyncio.get_running_loop().create_future()
        self._waiting.append((instance_id, done))
        if self._worker is None or self._worker.done():
            self._worker = asyncio.create_task(self._work())
        return await done

    async def _work(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting[:_MAX_BATCH], self._waiting[_MAX_BATCH:]
            try:
                found = await self._fetch(list({instance_id for instance_id, _ in batch}))
            except BaseException as exc:
                for _, done in batch:
                    if not done.done():
                        done.set_exception(exc)
                if not isinstance(exc, Exception):
                    raise
                continue
            for instance_id, done in batch:
                if done.done():
                    continue
                if instance_id in found:
                    done.set_result(found[instance_id])
                else:
                    done.set_exception(OrthancNotFound())

    async def _fetch(self, instance_ids: list[str]) -> dict[str, StoredFile]:
        if len(instance_ids) == 1:
            return {instance_ids[0]: await self._orthanc.stored_file(instance_ids[0])}
        stored = await self._orthanc.stored_files(instance_ids)
        return {one.instance_id: one for one in stored}
