"""The open entries as files of one folder, which Orthanc's worklist plugin serves to scanners.

MongoDB decides, the folder follows: of all processes with WORKLIST_FOLDER the holder of a lease
writes it, whole at its start, then what changes. A file is written under another name first: the
plugin serves half a file as if it were an entry. Files of others in the folder stay.
"""

import asyncio
import logging
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import WorklistEntryDocument
from models.stored import stored_name
from services.database import translated_database_faults
from services.errors import DatabaseUnavailable
from services.sync.lease import Lease
from services.tasks import HANGING_SECONDS, Alarm, finish_in_thread, heartbeat
from services.worklist.dicom_file import SUFFIX, encode_entry
from services.worklist.service import IS_OPEN

_log = logging.getLogger(__name__)

_VERSION = stored_name(WorklistEntryDocument.version)
_UPDATED_AT = stored_name(WorklistEntryDocument.updated_at)

_LEASE = "worklist-folder"

_LOOK_SECONDS = 1.0
"""How often the holder looks for changes of other processes: two commands without documents."""
_WHOLE_SECONDS = 60.0
"""How often it looks at the whole folder, for files that were removed by hand."""
_BATCH = 500
"""Entries that are written at once."""

_OWN_NAME = re.compile(r"[0-9a-f]{32}\.wl", re.ASCII)
_DRAFT_NAME = re.compile(r"\.[0-9a-f]{32}\.wl\.tmp", re.ASCII)


class WorklistFolder:
    """Writes the folder.

    Args:
        database: Where the entries are.
        folder: What the plugin reads; created when missing.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]], folder: Path) -> None:
        self._entries = database[WorklistEntryDocument.Settings.name]
        self._folder = folder
        self._lease = Lease(database, _LEASE)
        self._written: dict[str, str] | None = None
        self._writing = asyncio.Lock()
        self._stale = Alarm()

    async def run(self) -> None:
        """Keep the folder right while this process holds the lease, until cancelled."""
        await self._lease.hold(self._work)

    async def refresh(self) -> None:
        """Write what has changed, where this process writes the folder; else its writer will."""
        if not self._lease.is_held or self._written is None:
            return
        try:
            await self._write_changes()
        except (OSError, DatabaseUnavailable) as exc:
            # The entry is stored: its caller must learn that. The loop tries again.
            _log.warning("the worklist folder is not up to date: %s", type(exc).__name__)
            self._stale.ring()

    async def _work(self, _token: int) -> None:
        clock = asyncio.get_running_loop().time
        self._written = None
        seen: object = None
        whole_since = clock()
        try:
            with heartbeat("worklist folder") as alive:
                while True:
                    alive.beat(HANGING_SECONDS)
                    try:
                        figures = await self._figures()
                        if self._written is None or clock() - whole_since >= _WHOLE_SECONDS:
                            whole_since = clock()
                            await self._write_all()
                        elif figures != seen:
                            await self._write_changes()
                        seen = figures
                    except (OSError, DatabaseUnavailable) as exc:
                        seen = None
                        reason = exc.strerror if isinstance(exc, OSError) else exc.message
                        _log.warning("the worklist folder waits: %s", reason)
                    if await self._stale.wait(_LOOK_SECONDS):
                        seen = None
                        await asyncio.sleep(_LOOK_SECONDS)
        finally:
            self._written = None

    async def _figures(self) -> object:
        """Return what moves when any entry changes: cheap to ask."""
        with translated_database_faults():
            newest = await self._entries.find_one(
                {}, {_UPDATED_AT: 1, "_id": 0}, sort=[(_UPDATED_AT, -1)]
            )
            return newest, await self._entries.estimated_document_count()

    async def _write_all(self) -> None:
        async with self._writing:
            present = await finish_in_thread(_present, self._folder)
            open_ = await self._open_versions()
            known = self._written or {}
            # A file of an earlier process may be that of an earlier version.
            stale = [
                one
                for one, version in open_.items()
                if one not in present or known.get(one) != version
            ]
            await self._apply(stale, gone=present - open_.keys())

    async def _write_changes(self) -> None:
        async with self._writing:
            known = self._written
            if known is None:
                return
            open_ = await self._open_versions()
            changed = [one for one, version in open_.items() if known.get(one) != version]
            await self._apply(changed, gone=known.keys() - open_.keys())

    async def _open_versions(self) -> dict[str, str]:
        with translated_database_faults():
            found = self._entries.find(IS_OPEN, {_VERSION: 1})
            return {one["_id"]: one[_VERSION] async for one in found}

    async def _apply(self, changed: list[str], *, gone: Iterable[str]) -> None:
        """Remove and write files; what fails is tried again by the next call."""
        written = dict(self._written or {})
        try:
            gone = list(gone)
            await finish_in_thread(_remove, self._folder, gone)
            for one in gone:
                written.pop(one, None)
            for start in range(0, len(changed), _BATCH):
                with translated_database_faults():
                    found = await self._entries.find(
                        {"_id": {"$in": changed[start : start + _BATCH]}, **IS_OPEN}
                    ).to_list()
                entries = [WorklistEntryDocument.model_validate(one) for one in found]
                await finish_in_thread(_write, self._folder, entries)
                written |= {one.id: one.version for one in entries}
        finally:
            self._written = written


def _present(folder: Path) -> set[str]:
    """Return the identifiers of the entries whose files are there, without drafts of a crash."""
    # Orthanc may run as another user of the folder's group: its setgid bit gives files that group.
    folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    names = [path.name for path in folder.iterdir()]
    for name in filter(_DRAFT_NAME.fullmatch, names):
        (folder / name).unlink(missing_ok=True)
    return {name.removesuffix(SUFFIX) for name in names if _OWN_NAME.fullmatch(name)}


def _remove(folder: Path, ids: list[str]) -> None:
    for one in ids:
        (folder / f"{one}{SUFFIX}").unlink(missing_ok=True)


def _write(folder: Path, entries: list[WorklistEntryDocument]) -> None:
    for entry in entries:
        path = folder / f"{entry.id}{SUFFIX}"
        draft = path.with_name(f".{path.name}.tmp")
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o640)
        with os.fdopen(descriptor, "wb") as file:
            file.write(encode_entry(entry))
        # Without fsync: after a loss of power the folder is written from MongoDB.
        draft.replace(path)
