"""A lease in MongoDB: one of all processes does a job, and another takes over when it dies."""

import asyncio
import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from models import LeaseDocument
from models.stored import stored_name
from services.database import translated_database_faults
from services.errors import DatabaseUnavailable, Error
from services.tasks import HANGING_SECONDS, beat, cancel_and_wait, heartbeat

_EXPIRES_AT = stored_name(LeaseDocument.expires_at)


_log = logging.getLogger(__name__)

LEASE_SECONDS = 9.0
"""Time after which a dead holder is replaced; with `RENEW_SECONDS` it is well below 15 s."""

RENEW_SECONDS = 3.0
"""A third of the lease, so that two renewals may fail."""

_WAIT_SECONDS = 0.2


class LeaseLost(Error):
    """Another process has taken over the lease."""

    code = "LEASE_LOST"
    default_message = "Another process has taken over this job."


class Lease:
    """The lease of a job, held by one process. All times are MongoDB's, so clocks may differ."""

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        job: str,
        *,
        lease_seconds: float = LEASE_SECONDS,
        renew_seconds: float = RENEW_SECONDS,
    ) -> None:
        self._leases = database[LeaseDocument.Settings.name]
        self._job = job
        self._holder = secrets.token_hex(8)
        self._lease_seconds = lease_seconds
        self._renew_seconds = renew_seconds
        self.is_held = False

    async def hold(self, work: Callable[[int], Awaitable[None]]) -> None:
        """Do the work while this process has the lease, until cancelled; then release the lease.

        Args:
            work: Called with the fencing token; cancelled when the lease is lost.
        """
        try:
            with heartbeat("lease") as alive:
                while True:
                    alive.beat(self._renew_seconds + HANGING_SECONDS)
                    token = await self._acquired_or_none()
                    if token is None:
                        await asyncio.sleep(self._renew_seconds)
                    else:
                        await self._work_while_held(work, token)
        finally:
            await self._release()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keep the lease while inside, once it is free.

        Raises:
            LeaseLost: What was done inside may have been done beside another holder.
            DatabaseUnavailable: MongoDB does not answer.
        """
        while (token := await self.acquire()) is None:  # noqa: ASYNC110  # another process holds it
            await asyncio.sleep(_WAIT_SECONDS)
        renewing = asyncio.create_task(self._renew(token), name=f"renew the lease {self._job}")
        try:
            yield
            if renewing.done():
                await renewing
        finally:
            self.is_held = False
            await cancel_and_wait(renewing)
            await self._release()

    async def until_free(self) -> None:
        """Wait until nobody holds the lease.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        is_held = {"_id": self._job, "$expr": {"$gt": [f"${_EXPIRES_AT}", "$$NOW"]}}
        while True:
            with translated_database_faults():
                if await self._leases.find_one(is_held, {"_id": 1}) is None:
                    return
            await asyncio.sleep(_WAIT_SECONDS)

    async def repeat(
        self, name: str, step: Callable[[], Awaitable[None]], *, pause_seconds: float
    ) -> None:
        """Do a step regularly while the lease is ours, until cancelled.

        A step that meets an `Error`, such as a MongoDB that does not answer, is done again; that is
        logged once.

        Args:
            name: Of the loop.
            step: What is done.
            pause_seconds: Between two steps.
        """

        async def work(_token: int) -> None:
            is_waiting = False
            with heartbeat(name) as alive:
                while True:
                    alive.beat(HANGING_SECONDS)
                    try:
                        await step()
                        is_waiting = False
                    except Error as exc:
                        if not is_waiting:
                            _log.warning("%s: waiting, %s", name, exc.detail or exc.message)
                        is_waiting = True
                    await asyncio.sleep(pause_seconds)

        await self.hold(work)

    async def acquire(self) -> int | None:
        """Acquire or renew the lease with one atomic command.

        Returns:
            The fencing token, None while another process holds the lease.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            try:
                lease = await self._leases.find_one_and_update(
                    {"_id": self._job},
                    _acquisition(self._holder, self._lease_seconds),
                    upsert=True,
                    return_document=ReturnDocument.AFTER,
                )
            except DuplicateKeyError:
                # Two processes created the first lease at the same time, and the other was faster.
                lease = None
        self.is_held = lease is not None and lease["holder"] == self._holder
        return int(lease["token"]) if lease is not None and self.is_held else None

    async def _acquired_or_none(self) -> int | None:
        try:
            return await self.acquire()
        except DatabaseUnavailable as exc:
            _log.warning("the lease waits for MongoDB: %s", exc.detail or exc.message)
            return None

    async def _work_while_held(self, work: Callable[[int], Awaitable[None]], token: int) -> None:
        _log.info("this process has the lease %r now", self._job)
        working = asyncio.ensure_future(work(token))
        renewing = asyncio.ensure_future(self._renew(token))
        try:
            await asyncio.wait({working, renewing}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            self.is_held = False
            await cancel_and_wait(working, renewing)
        outcomes = await asyncio.gather(working, renewing, return_exceptions=True)
        for outcome in outcomes:
            if isinstance(outcome, LeaseLost):
                _log.warning("%s", outcome.message)
            elif isinstance(outcome, Exception):
                _log.error(
                    "the work under the lease %r stopped and starts again",
                    self._job,
                    exc_info=outcome,
                )
                await asyncio.sleep(1)

    async def _renew(self, token: int) -> None:
        """Renew until the lease is lost, or until its state is unknown for its whole duration."""
        clock = asyncio.get_running_loop().time
        renewed_at = clock()
        while True:
            beat(self._renew_seconds + HANGING_SECONDS)
            await asyncio.sleep(self._renew_seconds)
            asked_at = clock()
            try:
                if await self.acquire() != token:
                    raise LeaseLost
                renewed_at = asked_at
            except DatabaseUnavailable as exc:
                if clock() - renewed_at > self._lease_seconds:
                    raise LeaseLost("MongoDB did not answer for as long as the lease.") from exc

    async def _release(self) -> None:
        """Let another process start at once; if MongoDB does not answer, the lease expires."""
        try:
            async with asyncio.timeout(2):
                with translated_database_faults():
                    await self._leases.update_one(
                        {"_id": self._job, "holder": self._holder},
                        [{"$set": {_EXPIRES_AT: "$$NOW"}}],
                    )
        except (DatabaseUnavailable, TimeoutError) as exc:
            _log.info("the lease was not released: %s", type(exc).__name__)


def _acquisition(holder: str, lease_seconds: float) -> list[dict[str, Any]]:
    """Return the update that acquires a free, expired or own lease, but no other."""
    is_own = {"$eq": ["$holder", holder]}
    is_free = {"$lte": [{"$ifNull": [f"${_EXPIRES_AT}", "$$NOW"]}, "$$NOW"]}
    may_take = {"$or": [is_own, is_free]}
    next_token = {"$add": [{"$ifNull": ["$token", 0]}, {"$cond": [is_own, 0, 1]}]}
    expires_at = {"$add": ["$$NOW", round(lease_seconds * 1000)]}
    return [
        {
            "$set": {
                # One stage, so that all fields are computed from the former lease.
                "token": {"$cond": [may_take, next_token, "$token"]},
                "holder": {"$cond": [may_take, holder, "$holder"]},
                _EXPIRES_AT: {"$cond": [may_take, expires_at, f"${_EXPIRES_AT}"]},
            }
        }
    ]


def pause_of_replacements(database: AsyncDatabase[dict[str, Any]]) -> Lease:
    """Return the lease of whoever copies both stores: meanwhile no stored file is taken out.

    Whoever replaces a file writes the new one into MongoDB, then waits until this lease is free,
    and then takes the old one out. Whoever copies keeps the lease, and reads MongoDB before
    Orthanc. So a file that is missing in the copy of Orthanc is in the copy of MongoDB.
    """
    return Lease(database, "pause-replacements", lease_seconds=60, renew_seconds=5)
