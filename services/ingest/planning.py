"""Decide how a parent document is written, as a compare-and-set on its `version`. Pure."""

from dataclasses import dataclass
from typing import Any

from services.ingest.stored_fields import Fields


@dataclass(frozen=True, slots=True)
class Insert:
    """There was no such document: write one, unless somebody else was faster."""

    id: str
    content: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Update:
    """Set fields of the document if it still has the version that was read."""

    id: str
    expected_version: str
    fields: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Delete:
    """The last child is gone: remove the document if it still has the version that was read."""

    id: str
    expected_version: str


Write = Insert | Update | Delete


def plan_write(
    document_id: str,
    *,
    current: Fields | None,
    content: Fields | None,
    on_insert: Fields | None = None,
    on_change: Fields | None = None,
    must_touch: bool,
) -> Write | None:
    """Decide the one write that brings a document to its content.

    Args:
        document_id: Its `_id`.
        current: As read before the children were, None when there was none.
        content: What it should hold, None when it has no children any more.
        on_insert: More that is written with a new document; None: a new one can't be made,
            because its attributes are not at hand.
        on_change: More that is written when the content changed.
        must_touch: Children were written, so that whoever aggregated before must lose its race:
            the version changes even when the content does not.

    Returns:
        None when nothing is to be written.
    """
    if content is None:
        return None if current is None else Delete(document_id, current["version"])
    if current is None:
        if on_insert is None:
            return None
        return Insert(document_id, {**content, **(on_change or {}), **on_insert})
    changed = {key: value for key, value in content.items() if current.get(key, _GONE) != value}
    if changed:
        return Update(document_id, current["version"], {**changed, **(on_change or {})})
    return Update(document_id, current["version"], {}) if must_touch else None


_GONE = object()


def merged(attributes: Fields, current: Fields | None) -> dict[str, Any]:
    """Lay what a file says over what is stored; what the file does not say stays.

    A dose report without a description does not take the description from its study.
    """
    return {
        key: (current or {}).get(key) if value is None else value
        for key, value in attributes.items()
    }
