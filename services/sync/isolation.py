"""Reconciles batches with instances that crash Orthanc whenever their header is read."""

import asyncio
import logging
from collections import Counter
from collections.abc import Sequence

from services.errors import (
    Error,
    OrthancAuthenticationFailed,
    OrthancOutcomeUnknown,
    OrthancTimedOut,
    OrthancUnavailable,
)
from services.orthanc.client import OrthancClient
from services.sync.faults import MAX_ATTEMPTS
from services.sync.reconciler import Reconciler, Reconciliation
from services.tasks import HANGING_SECONDS, beat

_log = logging.getLogger(__name__)

PATIENCE = 3
"""A batch that breaks Orthanc's answer so often contains an instance that crashes it."""

_RETURN_SECONDS = 30.0
"""Longest wait for Orthanc after a crash; then the caller gets an error."""

_MAX_PAUSE_SECONDS = 5.0

_STOPS_ORTHANC = "Orthanc stops when its header is read."


class PoisonIsolator:
    """Finds the instances of a batch that crash Orthanc, records them and continues.

    Args:
        orthanc: Asked whether it answers again.
        reconciler: Reconciles batches.
        pause_seconds: Between two such requests, longer each time.
    """

    def __init__(
        self, orthanc: OrthancClient, reconciler: Reconciler, *, pause_seconds: float = 0.5
    ) -> None:
        self._orthanc = orthanc
        self._reconciler = reconciler
        self._pause_seconds = pause_seconds
        self._broken: Counter[str] = Counter()

    async def reconcile(
        self, instance_ids: Sequence[str], *, patience: int = PATIENCE
    ) -> Reconciliation:
        """Reconcile a batch; see `Reconciler.reconcile`.

        Args:
            instance_ids: The batch. A batch that failed before is recognized by its first instance.
            patience: After so many broken answers the batch is tried in smaller and smaller parts;
                0 for instances that are already suspected.

        Raises:
            OrthancUnavailable: Orthanc does not answer, or crashed less than `patience` times.
            DatabaseUnavailable: MongoDB does not answer.
        """
        if not instance_ids:
            return Reconciliation()
        batch = instance_ids[0]
        try:
            if self._broken[batch] < patience:
                done = await self._reconciler.reconcile(instance_ids)
            else:
                done = await self._in_halves(instance_ids)
        except OrthancTimedOut:
            # A slow Orthanc has not crashed.
            raise
        except OrthancOutcomeUnknown:
            self._broken[batch] += 1
            raise
        del self._broken[batch]
        return done

    async def _in_halves(self, instance_ids: Sequence[str]) -> Reconciliation:
        try:
            return await self._reconciler.reconcile(instance_ids)
        except OrthancTimedOut:
            raise
        except OrthancOutcomeUnknown as exc:
            await self._until_orthanc_answers()
            if len(instance_ids) == 1:
                return await self._give_up(instance_ids[0], exc)
        middle = len(instance_ids) // 2
        done = await self._in_halves(instance_ids[:middle])
        done.add(await self._in_halves(instance_ids[middle:]))
        return done

    async def _give_up(self, instance_id: str, exc: Error) -> Reconciliation:
        _log.error("instance %s stops Orthanc when its header is read", instance_id, exc_info=exc)
        files = await self._orthanc.stored_files([instance_id])
        reasons = {file.instance_id: _STOPS_ORTHANC for file in files}
        await self._reconciler.faults.record(files, reasons, least_attempts=MAX_ATTEMPTS)
        return Reconciliation(faults=reasons)

    async def _until_orthanc_answers(self) -> None:
        """Wait until Orthanc answers.

        Raises:
            OrthancUnavailable: It does not answer in time.
        """
        pause = self._pause_seconds
        try:
            async with asyncio.timeout(_RETURN_SECONDS):
                while not await self._answers():
                    beat(HANGING_SECONDS)
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _MAX_PAUSE_SECONDS)
        except TimeoutError as exc:
            raise OrthancUnavailable(detail="it stopped and did not come back") from exc

    async def _answers(self) -> bool:
        try:
            await self._orthanc.system()
        except OrthancAuthenticationFailed:
            raise
        except OrthancUnavailable:
            return False
        return True
