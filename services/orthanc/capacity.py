"""How much of Orthanc this process may take, and how processes of one machine share it."""

import os
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class OrthancCapacity:
    """What may happen at once.

    Attributes:
        calls: Short calls of the REST API.
        downloads: Archives and files that are passed on to readers outside, who may be slow.
            Orthanc 1.10.1 has 50 HTTP threads and packs an archive in one of them.
        stores: Files that are sent to Orthanc. Its disk is the limit long before its threads are.
        store_bytes: The bytes of all of these; a larger file goes alone. Orthanc 1.10.1 takes 3.2
            bytes of memory for each byte of a file while it stores it.
        reads: Headers of stored files that are read. Orthanc answers modalities and viewers too.
        frames: Frames that are fetched: while one is read, another is windowed and encoded.
    """

    calls: int = 32
    downloads: int = 8
    stores: int = 16
    store_bytes: int = 1024**3
    reads: int = 8
    frames: int = 2 * (os.cpu_count() or 1)

    def divided(self, processes: int) -> Self:
        """Return the share of one of several processes; none gets less than two calls at once."""
        return type(self)(
            calls=max(8, divided(self.calls, processes)),
            downloads=max(2, divided(self.downloads, processes)),
            stores=max(2, divided(self.stores, processes)),
            store_bytes=self.store_bytes // processes,
            reads=max(2, divided(self.reads, processes)),
            frames=max(2, divided(self.frames, processes)),
        )


def divided(total: int, processes: int) -> int:
    """Return the share of each of some processes, rounded up, 1 at least."""
    return max(1, -(-total // processes))


WHOLE_CAPACITY = OrthancCapacity()
"""Of a process that shares Orthanc with no other one of this machine."""
