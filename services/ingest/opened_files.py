"""Files that are open while it is their turn to go to Orthanc: few at a time."""

import asyncio
from typing import BinaryIO


class OpenedFile:
    """An open file whose turn it is to go to Orthanc; `aclose` ends both, and may be repeated."""

    def __init__(
        self, name: str, file: BinaryIO, turns: asyncio.Semaphore, *, is_on_disk: bool
    ) -> None:
        self.name = name
        self.file = file
        self._turns = turns
        self._is_on_disk = is_on_disk
        self._is_closed = False

    async def aclose(self) -> None:
        """Close the file and let the next one have its turn."""
        if self._is_closed:
            return
        self._is_closed = True
        try:
            await close_file(self.file, is_on_disk=self._is_on_disk)
        finally:
            self._turns.release()


async def wait_for_turn(
    name: str, file: BinaryIO, turns: asyncio.Semaphore, *, is_on_disk: bool
) -> OpenedFile:
    """Wait until an open file may go to Orthanc."""
    try:
        await turns.acquire()
    except BaseException:
        await close_file(file, is_on_disk=is_on_disk)
        raise
    return OpenedFile(name, file, turns, is_on_disk=is_on_disk)


async def close_file(file: BinaryIO, *, is_on_disk: bool) -> None:
    """Close a file, in a thread when the disk has its bytes to free; not before that is done."""
    if not is_on_disk:
        file.close()
        return
    closing = asyncio.create_task(asyncio.to_thread(file.close))
    try:
        await asyncio.shield(closing)
    except asyncio.CancelledError:
        await asyncio.wait([closing])
        raise
