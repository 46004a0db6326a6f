"""Folders beside the data directory: that of the worklist, and that of backups."""

import tempfile
from datetime import datetime, timedelta
from pathlib import Path

from services.backup.catalogue import list_backups
from services.doctor.findings import Finding, ok, problem, warning
from services.errors import Error

_OLD = timedelta(days=7)
"""A newest backup that is older was forgotten, or its timer fails."""


def examine_worklist_folder(folder: Path) -> Finding:
    """Check that the worklist can be written for an Orthanc that is not embedded. Blocks.

    Args:
        folder: WORKLIST_FOLDER.
    """
    part = "Worklist folder"
    try:
        with tempfile.TemporaryFile(dir=folder):
            return ok(part, str(folder))
    except OSError as exc:
        return problem(
            part,
            f"{folder} takes no files ({exc.strerror}). Create it so that this server may write "
            "and Orthanc may read it: docs/worklist.md",
        )


def examine_backups(folder: Path, now: datetime) -> Finding:
    """Check that there is a recent backup. Blocks.

    Args:
        folder: BACKUP_FOLDER.
        now: The time, with time zone.
    """
    part = "Backups"
    try:
        backups = list_backups(folder)
    except (OSError, Error) as exc:
        reason = exc.message if isinstance(exc, Error) else exc.strerror
        return problem(part, f"{folder} can't be read: {reason}")
    how = f"Make one every night: orthanc-graphql backup {folder}"
    if not backups:
        return warning(part, f"There is none in {folder}. {how}")
    newest = backups[0]
    if now - newest.manifest.created_at > _OLD:
        return warning(part, f"The newest in {folder} is {newest.name}. {how}")
    verified = "verified" if newest.verified_at else "not verified yet"
    return ok(part, f"{len(backups)} in {folder}, the newest {newest.name}, {verified}")
