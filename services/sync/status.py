"""How far behind the index is."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from services.orthanc.answers import ChangePage

_ORTHANC_DATE = "%Y%m%dT%H%M%S"
"""Orthanc's dates are in UTC, to the second."""


@dataclass(frozen=True, slots=True)
class FeedStatus:
    """The state of the change feed, for users and load balancers.

    Attributes:
        is_following: This process follows it; another one may do so instead.
        behind_changes: Changes in Orthanc that are not applied, None when that is unknown.
        behind_seconds: Age of the oldest of them, in seconds, None when that is unknown.
        last_error: Why it makes no progress, None when it does.
    """

    is_following: bool
    behind_changes: int | None = None
    behind_seconds: float | None = None
    last_error: str | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the status as `/api/status` shows it."""
        return {
            "isFollowing": self.is_following,
            "behindChanges": self.behind_changes,
            "behindSeconds": self.behind_seconds,
            "message": self.last_error,
        }


def seconds_behind(waiting: ChangePage, now: datetime) -> float:
    """Return the age of the oldest waiting change; 0 if there is none or its date is invalid.

    Args:
        waiting: The page of changes after the cursor.
        now: In UTC.
    """
    if not waiting.changes:
        return 0.0
    try:
        oldest = datetime.strptime(waiting.changes[0].date, _ORTHANC_DATE).replace(tzinfo=UTC)
    except ValueError:
        return 0.0
    return max(0.0, (now - oldest).total_seconds())
