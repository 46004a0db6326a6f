"""When which study event is told: bursts become one event a second, silence becomes STABLE."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any

BURST_SECONDS = 1.0
"""Least time between two events of one study: 500 arriving images redraw a worklist once."""


class StudyChangeKind(Enum):
    """What happened to a study."""

    CREATED = "CREATED"
    UPDATED = "UPDATED"
    STABLE = "STABLE"
    DELETED = "DELETED"


@dataclass(frozen=True, slots=True)
class StudyChange:
    """One event.

    Attributes:
        study_id: Orthanc's id of the study.
        document: The study as stored, None when it is deleted.
    """

    kind: StudyChangeKind
    study_id: str
    study_instance_uid: str
    document: Mapping[str, Any] | None


@dataclass(slots=True)
class _Tracked:
    """A study that changed lately; times are those of the caller's clock, in seconds."""

    change: StudyChange
    changed_at: float
    is_pending: bool
    told_at: float | None = None


class EventPacing:
    """Holds changes back until they are due. Has no clock of its own."""

    def __init__(self, stable_seconds: float) -> None:
        self._stable_seconds = stable_seconds
        self._tracked: dict[str, _Tracked] = {}

    def note(self, change: StudyChange | None, at: float) -> None:
        """Take a change in.

        Args:
            change: What happened; None for what can't be told.
            at: Now, in seconds.
        """
        if change is None:
            return
        known = self._tracked.get(change.study_id)
        told_at = known.told_at if known else None
        if known and known.is_pending:
            change = _merged(known.change, change)
        self._tracked[change.study_id] = _Tracked(change, at, is_pending=True, told_at=told_at)

    def expect_stable(self, change: StudyChange, changed_at: float) -> None:
        """Take in a study that changed before anybody listened: only its rest is told.

        Args:
            change: The study as it is.
            changed_at: When it changed, in seconds of the same clock.
        """
        self._tracked.setdefault(change.study_id, _Tracked(change, changed_at, is_pending=False))

    def due(self, at: float) -> list[StudyChange]:
        """Return the events to tell now, each once.

        Args:
            at: Now, in seconds.
        """
        events = []
        for study_id, tracked in tuple(self._tracked.items()):
            if tracked.is_pending:
                if tracked.told_at is None or at - tracked.told_at >= BURST_SECONDS:
                    tracked.is_pending = False
                    tracked.told_at = at
                    events.append(tracked.change)
                    if tracked.change.kind is StudyChangeKind.DELETED:
                        del self._tracked[study_id]
            elif at - tracked.changed_at >= self._stable_seconds:
                events.append(replace(tracked.change, kind=StudyChangeKind.STABLE))
                del self._tracked[study_id]
        return events


def _merged(held_back: StudyChange, newer: StudyChange) -> StudyChange:
    """Return the one change that stands for two, the first of which nobody was told of."""
    if newer.kind is StudyChangeKind.UPDATED and held_back.kind is StudyChangeKind.CREATED:
        return replace(newer, kind=StudyChangeKind.CREATED)
    if newer.kind is StudyChangeKind.CREATED and held_back.kind is StudyChangeKind.DELETED:
        # Deleted and sent again within a second: for whoever shows it, it changed.
        return replace(newer, kind=StudyChangeKind.UPDATED)
    return newer
