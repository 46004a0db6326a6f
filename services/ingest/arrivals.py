"""Index files that Orthanc has just taken."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from services.dicom.checking import CheckedFile
from services.errors import (
    DatabaseUnavailable,
    OrthancError,
    OrthancNotFound,
    OrthancTimedOut,
    OrthancUnavailable,
)
from services.ingest.entry import IndexEntry
from services.ingest.pushing import Pushed
from services.orthanc.answers import StoredFile
from services.orthanc.client import OrthancClient


@dataclass(frozen=True, slots=True)
class Arrived:
    """A file that Orthanc has and the index not yet."""

    file_name: str
    checked: CheckedFile
    pushed: Pushed


class Arrivals:
    """Asks Orthanc what it made of files, and indexes them together.

    Args:
        orthanc: Tells what it has.
        index: `Indexer.index`.
    """

    def __init__(
        self, orthanc: OrthancClient, index: Callable[[Sequence[IndexEntry]], Awaitable[None]]
    ) -> None:
        self._orthanc = orthanc
        self._write = index

    async def index(self, batch: Sequence[Arrived]) -> list[int | Exception]:
        """Index files as Orthanc holds them.

        Returns:
            The number of frames of each, or why it alone is not indexed.

        Raises:
            DatabaseUnavailable: None of them may be indexed.
            OrthancError: Likewise.
        """
        stored = await self._orthanc.stored_files(
            [arrived.pushed.ids.instance for arrived in batch]
        )
        by_id = {one.instance_id: one for one in stored}
        entries = [
            await self._entry(arrived, by_id.get(arrived.pushed.ids.instance)) for arrived in batch
        ]
        try:
            await self._write([entry for entry in entries if isinstance(entry, IndexEntry)])
        except DatabaseUnavailable:
            raise
        except Exception:  # noqa: BLE001  # one entry must not keep the others out
            return [await self._indexed_alone(entry) for entry in entries]
        return [one.number_of_frames if isinstance(one, IndexEntry) else one for one in entries]

    async def _indexed_alone(self, entry: IndexEntry | Exception) -> int | Exception:
        if isinstance(entry, Exception):
            return entry
        try:
            await self._write([entry])
        except DatabaseUnavailable:
            # The others would have to wait for it as well.
            raise
        except Exception as exc:  # noqa: BLE001  # told to its sender
            return exc
        return entry.number_of_frames

    async def _entry(
        self, arrived: Arrived, stored: StoredFile | None
    ) -> IndexEntry | OrthancError:
        if stored is None:
            return OrthancNotFound("It was deleted from Orthanc at once.")
        checked = arrived.checked
        frames = checked.number_of_frames
        try:
            if frames > 1:
                frames = min(frames, await self._frames_of_orthanc(stored.instance_id, frames))
        except OrthancTimedOut:
            # Each of the others might take as long.
            raise
        except OrthancUnavailable as exc:
            return exc
        return IndexEntry(
            header=checked.header,
            ids=arrived.pushed.ids,
            revision=stored.revision,
            file_size_bytes=stored.file_size_bytes,
            number_of_frames=frames,
            not_renderable_reason=checked.not_renderable_reason,
        )

    async def _frames_of_orthanc(self, instance_id: str, otherwise: int) -> int:
        try:
            return await self._orthanc.frame_count(instance_id) or otherwise
        except OrthancUnavailable:
            raise
        except OrthancError:
            # Orthanc can't count the frames of some files that it can show.
            return otherwise
