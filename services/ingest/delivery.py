"""Delivers a file to Orthanc, also when Orthanc crashes.

After Orthanc's answer 200 a file is stored durably; after a broken connection it may or may not be.
Such a file is looked up by the identifier that its header determines, and sent again if Orthanc
does not have it. Because the file itself may have crashed Orthanc, such files are sent again one at
a time: a file that crashes Orthanc a second time affects no other.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from services.dicom.rewriting import PreparedFile
from services.errors import (
    OrthancBusy,
    OrthancNotFound,
    OrthancOutcomeUnknown,
    OrthancTimedOut,
    OrthancUnavailable,
)
from services.ingest.results import StoreStatus
from services.orthanc.answers import StoreAnswer
from services.orthanc.client import OrthancClient
from services.orthanc.files import OrthancFiles
from services.orthanc.identifiers import OrthancIds
from services.tasks import finish_in_thread

RETURN_SECONDS = 10.0
"""Longest wait for an unavailable Orthanc; the embedded one restarts in about a second."""

_POLL_SECONDS = 0.1
_BUSY_SECONDS = (0.05, 0.3)
_ATTEMPTS = 8
"""Orthanc may become unavailable again while a file is looked up or sent again."""


_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class DeliveredFile:
    """The identifiers of a delivered file and what Orthanc has under them.

    Attributes:
        status: STORED, ALREADY_STORED or CONFLICT.
    """

    ids: OrthancIds
    status: StoreStatus


PushAnswer = StoreAnswer | OrthancUnavailable
"""The outcome of sending a file: Orthanc's answer, or why there is none."""


class Outage:
    """Waits until an unavailable Orthanc answers again.

    All callers share one wait: later callers do not wait longer than the first.

    Args:
        orthanc: Asked whether it answers.
        return_seconds: Longest wait, from the first caller's on.
    """

    def __init__(
        self,
        orthanc: OrthancClient,
        *,
        return_seconds: float = RETURN_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._orthanc = orthanc
        self._return_seconds = return_seconds
        self._clock = clock
        self._began: float | None = None
        self._polling = asyncio.Lock()

    def end(self) -> None:
        """Record that Orthanc answered."""
        self._began = None

    async def is_over(self) -> bool:
        """Wait until Orthanc answers; False if it does not in time."""
        async with self._polling:
            if self._began is None:
                self._began = self._clock()
            left = self._began + self._return_seconds - self._clock()
            with suppress(TimeoutError):
                async with asyncio.timeout(max(left, _POLL_SECONDS)):
                    await self._wait_for_answer()
                    self._began = None
        return self._began is None

    async def asking(self, call: Callable[[], Awaitable[_Answer]]) -> _Answer:
        """Make a call that only reads, and repeat it once after an outage.

        Raises:
            OrthancTimedOut: Orthanc is running and takes too long.
            OrthancUnavailable: Orthanc does not answer in time, or fails again.
        """
        try:
            return await call()
        except OrthancTimedOut:
            raise
        except OrthancUnavailable:
            if not await self.is_over():
                raise
        return await call()

    async def _wait_for_answer(self) -> None:
        while True:
            with suppress(OrthancUnavailable):
                await self._orthanc.system()
                return
            await asyncio.sleep(_POLL_SECONDS)


class Delivery:
    """Sends files to Orthanc and finds out whether they are stored.

    Args:
        orthanc: Asked which files it has.
        files: Sends files to Orthanc.
        outage: Waits until an unavailable Orthanc answers again.
    """

    def __init__(self, orthanc: OrthancClient, files: OrthancFiles, outage: Outage) -> None:
        self._orthanc = orthanc
        self._files = files
        self._outage = outage
        self._one_suspect = asyncio.Lock()

    def send(self, prepared: PreparedFile) -> PushAnswer:
        """Send a file, streamed; blocks.

        Raises:
            OrthancError: Orthanc answered and does not store it.
        """
        try:
            return self._files.store(prepared.pieces(), prepared.length)
        except OrthancUnavailable as exc:
            return exc

    async def find_outcome(
        self, prepared: PreparedFile, expected: OrthancIds, answer: PushAnswer
    ) -> DeliveredFile:
        """Find out whether a file is stored, and send it again if Orthanc does not have it.

        Orthanc compares only identifiers: it answers "already stored" also for another file with
        the same UIDs, and discards the new one. The MD5 distinguishes the two cases.

        Args:
            prepared: The file that was sent.
            expected: The identifiers that its header determines.
            answer: From `send`.

        Raises:
            OrthancError: It is not stored.
        """
        is_suspect = False
        for _ in range(_ATTEMPTS):
            if not isinstance(answer, OrthancUnavailable):
                return await self._delivered(prepared, expected, answer)
            if not await self._outage.is_over():
                raise answer
            if isinstance(answer, OrthancBusy):
                # Other uploads write the same rows of Orthanc's database: do not all retry at once.
                await asyncio.sleep(random.uniform(*_BUSY_SECONDS))  # noqa: S311  # no secret
            if not isinstance(answer, OrthancOutcomeUnknown):
                answer = await self._send_again(prepared)
                continue
            try:
                status = await self._look_up(prepared, expected)
            except OrthancUnavailable:
                continue
            if status is not None:
                return DeliveredFile(expected, status)
            if is_suspect or isinstance(answer, OrthancTimedOut):
                # The file crashed Orthanc twice, or Orthanc may still be working on it.
                raise answer
            is_suspect = True
            async with self._one_suspect:
                answer = await self._send_again(prepared)
        if isinstance(answer, OrthancUnavailable):
            raise answer
        return await self._delivered(prepared, expected, answer)

    async def _send_again(self, prepared: PreparedFile) -> PushAnswer:
        return await self._files.in_thread(partial(self.send, prepared))

    async def _look_up(self, prepared: PreparedFile, expected: OrthancIds) -> StoreStatus | None:
        """Compare with the file that Orthanc has under these identifiers; None if there is none."""
        try:
            held = await self._orthanc.dicom_md5(expected.instance)
        except OrthancNotFound:
            return None
        is_same = held == await finish_in_thread(prepared.md5)
        return StoreStatus.STORED if is_same else StoreStatus.CONFLICT

    async def _delivered(
        self, prepared: PreparedFile, expected: OrthancIds, answer: StoreAnswer
    ) -> DeliveredFile:
        self._outage.end()
        # `header_ids` gives all padded forms of a PatientID one patient; Orthanc does not.
        ids = OrthancIds(expected.patient, answer.study_id, answer.series_id, answer.instance_id)
        if not answer.already_stored:
            return DeliveredFile(ids, StoreStatus.STORED)
        # Most files are new: computing the MD5 of each while sending would take a tenth longer.
        held = await self._outage.asking(partial(self._orthanc.dicom_md5, ids.instance))
        is_same = held == await finish_in_thread(prepared.md5)
        status = StoreStatus.ALREADY_STORED if is_same else StoreStatus.CONFLICT
        return DeliveredFile(ids, status)
