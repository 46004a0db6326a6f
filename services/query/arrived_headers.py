"""Headers of files that were indexed a moment ago, as they are in the files, until they are made.

Who indexes a file has read its beginning. Keeping that for some seconds saves reading the file a
second time, which costs Orthanc and this process more than making the header.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from services.index.record import IndexRecord

_MAX_BYTES = 32 * 1024 * 1024
"""Of all of them: some 5,000 headers of CT. What is dropped is read from the file."""

_ENTRY_BYTES = 512
"""What an entry costs besides."""

_Key = tuple[str, str]
"""Orthanc's identifier of an instance, and its revision."""


@dataclass(frozen=True, slots=True)
class ArrivedHeader:
    """The beginning of a file, up to its pixel data.

    Attributes:
        beginning: Its bytes.
        file_size_bytes: Of the whole file.
    """

    beginning: bytes
    file_size_bytes: int


@dataclass(slots=True)
class _Series:
    last: float
    bytes_: int = 0
    headers: dict[_Key, ArrivedHeader] = field(default_factory=dict)


class ArrivedHeaders:
    """Keeps headers by their series; those of the series that waits longest go first.

    Args:
        max_bytes: Of all of them.
        clock: Seconds that never go back.
    """

    def __init__(
        self, *, max_bytes: int = _MAX_BYTES, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._clock = clock
        self._bytes = 0
        self._series: OrderedDict[str, _Series] = OrderedDict()
        self._any = asyncio.Event()

    @property
    def size_bytes(self) -> int:
        """Memory in use, in bytes."""
        return self._bytes

    def add(self, records: Iterable[IndexRecord]) -> None:
        """Keep the headers of what was indexed, as far as the records have them."""
        for record in records:
            if record.beginning is not None:
                header = ArrivedHeader(record.beginning, record.file_size_bytes)
                self._add(record.ids.series, (record.ids.instance, record.revision), header)
        while self._bytes > self._max_bytes:
            self.discard(next(iter(self._series)))
        if self._series:
            self._any.set()

    def _add(self, series_id: str, key: _Key, header: ArrivedHeader) -> None:
        series = self._series.setdefault(series_id, _Series(0.0))
        series.last = self._clock()
        self._series.move_to_end(series_id)
        kept = series.headers.get(key)
        if kept is not None and kept != header:
            # Two files in one revision: none is believed, and the stored one is read.
            self.discard(series_id)
        elif kept is None:
            series.headers[key] = header
            size = _ENTRY_BYTES + len(header.beginning)
            series.bytes_ += size
            self._bytes += size

    def find(self, series_id: str, key: _Key) -> ArrivedHeader | None:
        """Return the header of an instance of a series in a revision, None when it is not kept."""
        series = self._series.get(series_id)
        return None if series is None else series.headers.get(key)

    def discard(self, series_id: str) -> None:
        """Forget the headers of a series."""
        series = self._series.pop(series_id, None)
        if series is not None:
            self._bytes -= series.bytes_

    def quiet(self, seconds: float) -> list[str]:
        """Return the series to which nothing came for so long."""
        until = self._clock() - seconds
        return [series_id for series_id, series in self._series.items() if series.last <= until]

    async def wait(self) -> None:
        """Wait until there are any."""
        while not self._series:
            self._any.clear()
            await self._any.wait()
