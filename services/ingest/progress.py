"""How far uploads are: counted where they are stored, read by any process.

Only uploads to which their sender gave an identifier are recorded. The counts are for people who
wait: a fault of MongoDB may leave them wrong, and never fails an upload.
"""

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import astuple, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import UploadProgressDocument
from models.stored import stored_name
from services.auth.roles import Principal
from services.database import translated_database_faults
from services.errors import Error, InvalidInput

_log = logging.getLogger(__name__)

WRITE_SECONDS = 0.25
"""Least time between two writes of one request."""

READ_SECONDS = 0.5
"""Time between two reads of one follower: one look-up by `_id`."""

_KEPT = timedelta(hours=1)
"""After the last change. An upload of many requests may pause between two of them."""

_UPLOAD_ID = re.compile(r"[A-Za-z0-9_-]{8,64}", re.ASCII)

_RECEIVED = stored_name(UploadProgressDocument.received)
_CHECKED = stored_name(UploadProgressDocument.checked)
_STORED = stored_name(UploadProgressDocument.stored)
_FAILED = stored_name(UploadProgressDocument.failed)
_EXPIRES_AT = stored_name(UploadProgressDocument.expires_at)
_COUNTS = (_RECEIVED, _CHECKED, _STORED, _FAILED)


@dataclass(slots=True)
class UploadCounts:
    """Files of an upload; an archive that is opened counts as its members.

    Attributes:
        received: All that are here.
        checked: Those that were read, and brought into Orthanc or refused.
        stored: Those in Orthanc and in the index, new or not.
        failed: Those that were refused, conflicted or failed.
    """

    received: int = 0
    checked: int = 0
    stored: int = 0
    failed: int = 0


def parse_upload_id(text: str) -> str:
    """Return the identifier that a client made for its upload.

    Raises:
        InvalidInput: It is none.
    """
    if not _UPLOAD_ID.fullmatch(text):
        message = "The id of an upload has 8 to 64 letters, digits, `-` or `_`, such as a UUID."
        raise InvalidInput(message, argument="uploadId")
    return text


class UploadProgressRecords:
    """The counts of uploads in MongoDB. Nobody but their sender finds them.

    Args:
        database: An open database.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._uploads = database[UploadProgressDocument.Settings.name]

    @asynccontextmanager
    async def recorded(
        self, upload_id: str | None, sender: Principal
    ) -> AsyncIterator[UploadCounts]:
        """Record what is counted in the block; requests of one upload add up.

        Args:
            upload_id: As its sender named it; None: nothing is recorded.
            sender: Whose upload it is.
        """
        counts = UploadCounts()
        if upload_id is None:
            yield counts
            return
        ended = asyncio.Event()
        recording = asyncio.create_task(self._record(_key(upload_id, sender), counts, ended))
        try:
            yield counts
        finally:
            # Never cancelled: whether a write that was cut off counted could not be known.
            ended.set()
            try:
                await recording
            except Exception:  # noqa: BLE001  # what is stored is stored
                _log.exception("the progress of an upload is not recorded")

    async def follow(self, upload_id: str, sender: Principal) -> AsyncGenerator[UploadCounts, None]:
        """Yield the counts as they are, then whenever they have changed.

        An upload that nobody, or somebody else, has named this way has nothing but zeros.

        Args:
            upload_id: As its sender named it.
            sender: Whose upload it is.
        """
        key = _key(upload_id, sender)
        shown: UploadCounts | None = None
        while True:
            counts = shown
            with suppress(Error):  # While MongoDB is away there is nothing new.
                counts = await self._read(key)
            if counts is not None and counts != shown:
                shown = counts
                yield counts
            await asyncio.sleep(READ_SECONDS)

    async def _record(self, key: str, counts: UploadCounts, ended: asyncio.Event) -> None:
        written = UploadCounts()
        is_last = False
        while not is_last:
            with suppress(TimeoutError):
                async with asyncio.timeout(WRITE_SECONDS):
                    await ended.wait()
            # Read before the write: what is counted during it is written by the next one.
            is_last = ended.is_set()
            now = replace(counts)
            if now != written:
                with suppress(Error):
                    await self._add(key, since=written, now=now)
                    written = now

    async def _add(self, key: str, *, since: UploadCounts, now: UploadCounts) -> None:
        steps = zip(_COUNTS, astuple(now), astuple(since), strict=True)
        update = {
            "$inc": {name: after - before for name, after, before in steps},
            "$set": {_EXPIRES_AT: datetime.now(UTC) + _KEPT},
        }
        with translated_database_faults():
            await self._uploads.update_one({"_id": key}, update, upsert=True)

    async def _read(self, key: str) -> UploadCounts:
        with translated_database_faults():
            found = await self._uploads.find_one({"_id": key})
        return UploadCounts(*(found[name] for name in _COUNTS)) if found else UploadCounts()


def _key(upload_id: str, sender: Principal) -> str:
    # No identifier of an upload has a colon.
    return f"{upload_id}:{sender.name}"
