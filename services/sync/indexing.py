"""Writing entries into the index, so that one that can't be written keeps no other one out."""

import logging
from collections.abc import Sequence

from services.errors import DatabaseUnavailable
from services.ingest.entry import IndexEntry
from services.ingest.indexer import Indexer
from services.sync.header_reading import reason_of

_log = logging.getLogger(__name__)


async def index_each(indexer: Indexer, entries: Sequence[IndexEntry]) -> dict[str, str]:
    """Index all entries at once, or each alone when one of them can't be written.

    Args:
        indexer: What writes.
        entries: Of any number of studies.

    Returns:
        Reasons by instance id of those that can't be written, such as a record beyond what
        MongoDB holds.

    Raises:
        DatabaseUnavailable: MongoDB does not answer; it may be half done.
    """
    try:
        await indexer.index(entries)
    except DatabaseUnavailable:
        raise
    except Exception as exc:  # noqa: BLE001  # one entry must not keep the others out
        _log.warning("a batch can't be indexed, its instances are tried alone", exc_info=exc)
        faults = [await _index_alone(indexer, entry) for entry in entries]
        return {
            entry.ids.instance: fault
            for entry, fault in zip(entries, faults, strict=True)
            if fault is not None
        }
    return {}


async def _index_alone(indexer: Indexer, entry: IndexEntry) -> str | None:
    try:
        await indexer.index([entry])
    except DatabaseUnavailable:
        raise
    except Exception as exc:  # noqa: BLE001  # recorded; nobody else could repair it
        _log.exception("instance %s can't be indexed", entry.ids.instance)
        return reason_of(exc)
    return None
