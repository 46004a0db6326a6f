"""Delivers webhooks: one process of all looks for changes and posts them."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import httpx
import orjson
from pymongo.asynchronous.database import AsyncDatabase

from models import WebhookDeliveryDocument
from models.stored import stored_name
from services.errors import DatabaseUnavailable
from services.sync.lease import Lease
from services.tasks import HANGING_SECONDS, heartbeat
from services.webhooks.queue import WebhookQueue, receiver_of
from services.webhooks.signature import WebhookKeys

_log = logging.getLogger(__name__)

_ORTHANC_STUDY_ID = stored_name(WebhookDeliveryDocument.orthanc_study_id)
_STUDY_INSTANCE_UID = stored_name(WebhookDeliveryDocument.study_instance_uid)
_QUEUED_AT = stored_name(WebhookDeliveryDocument.queued_at)

_LEASE = "webhooks"
_LOOK_SECONDS = 0.5
_ANSWER_SECONDS = 15
_AT_ONCE = 4
"""Deliveries to one receiver at the same time."""

_FIRST_RETRY = timedelta(seconds=5)
_LONGEST_RETRY = timedelta(hours=1)
_LONGEST_PAUSE_SECONDS = 60.0
"""Longest pause of deliveries to a receiver that fails: one that is back is noticed within it."""


class Webhooks:
    """The deliveries of this server. Make it with `open_webhooks`.

    Args:
        database: Where studies and deliveries are.
        urls: Of the receivers.
        keys: Sign the deliveries.
        http: The HTTP client; it follows no redirect.
        stable_seconds: A study is stable when nothing new came for so long, in seconds.
        give_up_after: An event that can't be delivered for so long is dropped.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        urls: Sequence[str],
        keys: WebhookKeys,
        http: httpx.AsyncClient,
        *,
        stable_seconds: float,
        give_up_after: timedelta,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._urls = {receiver_of(url): url for url in urls}
        self._queue = WebhookQueue(database, list(self._urls), stable_seconds=stable_seconds)
        self._lease = Lease(database, _LEASE)
        self._keys = keys
        self._http = http
        self._give_up_after = give_up_after
        self._now = now

    async def run(self) -> None:
        """Deliver while this process holds the lease, until cancelled."""
        await self._lease.hold(self._work)

    async def _work(self, _token: int) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fill())
            for receiver in self._urls:
                group.create_task(self._deliver(receiver))

    async def _fill(self) -> None:
        """Queue what happens."""
        is_started = is_waiting = False
        with heartbeat("webhooks") as alive:
            while True:
                alive.beat(HANGING_SECONDS)
                try:
                    if not is_started:
                        await self._queue.start(self._now())
                        is_started = True
                    await self._queue.fill(self._now())
                    is_waiting = False
                except DatabaseUnavailable as exc:
                    if not is_waiting:
                        _log.warning("webhooks wait for MongoDB: %s", exc.detail or exc.message)
                    is_waiting = True
                await asyncio.sleep(_LOOK_SECONDS)

    async def _deliver(self, receiver: str) -> None:
        """Deliver to one receiver: one that hangs keeps no other waiting."""
        failures = 0
        while True:
            try:
                delivered = await self.deliver_due(receiver)
            except DatabaseUnavailable:
                delivered = True  # `_fill` says so
            failures = 0 if delivered else failures + 1
            await asyncio.sleep(min(_LOOK_SECONDS * 2**failures, _LONGEST_PAUSE_SECONDS))

    async def deliver_due(self, receiver: str) -> bool:
        """Deliver what is due to a receiver, a few at a time.

        Returns:
            False when a delivery failed: the receiver gets a pause.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        while due := await self._queue.due(receiver, self._now(), _AT_ONCE):
            outcomes = await asyncio.gather(*(self._deliver_one(receiver, one) for one in due))
            if not all(outcomes):
                return False
        return True

    async def _deliver_one(self, receiver: str, delivery: Mapping[str, Any]) -> bool:
        reason = await self._post(self._urls[receiver], delivery)
        if reason is None:
            await self._queue.remove(delivery)
            return True
        now = self._now()
        host = urlsplit(self._urls[receiver]).hostname
        if now - delivery[_QUEUED_AT] >= self._give_up_after:
            _log.error("a webhook to %s is given up: %s", host, reason)
            await self._queue.remove(delivery)
            return False
        attempts = int(delivery["attempts"])
        _log.warning("a webhook to %s failed (attempt %d): %s", host, attempts + 1, reason)
        pause = min(_FIRST_RETRY * 2 ** min(attempts, 16), _LONGEST_RETRY)
        await self._queue.postpone(delivery, now + pause)
        return False

    async def _post(self, url: str, delivery: Mapping[str, Any]) -> str | None:
        """Post an event; return why it was not taken, None when it was."""
        body = body_of(delivery)
        # The same for each attempt and each process: receivers drop what they have had.
        event_id = f"evt_{delivery['version']}"
        headers = self._keys.headers(event_id, int(time.time()), body)
        headers["Content-Type"] = "application/json"
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                # What the receiver says is not read, however long it is.
                async with self._http.stream("POST", url, content=body, headers=headers) as answer:
                    status = answer.status_code
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError, OSError) as exc:
            return type(exc).__name__
        return None if 200 <= status < 300 else f"status {status}"  # noqa: PLR2004  # RFC 9110 15.3


def body_of(delivery: Mapping[str, Any]) -> bytes:
    """Write an event: identifiers, and nothing about the patient."""
    return orjson.dumps(
        {
            "type": f"study.{delivery['kind']}",
            "timestamp": delivery[_QUEUED_AT].astimezone(UTC).isoformat(timespec="milliseconds"),
            "data": {
                _ORTHANC_STUDY_ID: delivery[_ORTHANC_STUDY_ID],
                _STUDY_INSTANCE_UID: delivery[_STUDY_INSTANCE_UID],
            },
        }
    )


@asynccontextmanager
async def open_webhooks(
    database: AsyncDatabase[dict[str, Any]],
    urls: Sequence[str],
    keys: WebhookKeys,
    *,
    stable_seconds: float,
    give_up_after: timedelta,
) -> AsyncIterator[Webhooks]:
    """Open what delivers webhooks; see `Webhooks`."""
    limits = httpx.Limits(max_connections=_AT_ONCE * len(urls))
    async with httpx.AsyncClient(
        timeout=_ANSWER_SECONDS, limits=limits, follow_redirects=False
    ) as http:
        yield Webhooks(
            database,
            urls,
            keys,
            http,
            stable_seconds=stable_seconds,
            give_up_after=give_up_after,
        )
