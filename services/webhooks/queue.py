"""The queue of deliveries in MongoDB, filled from the index and emptied by the sender.

Changed studies are read repeatedly from a cursor on. The cursor moves when everything before it is
queued, so an event is delivered at least once, even if the process dies at any time.
"""

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from cachetools import TTLCache
from pymongo import DeleteOne, UpdateOne
from pymongo.asynchronous.database import AsyncDatabase

from models import (
    DeletedStudyDocument,
    StudyCursorDocument,
    StudyDocument,
    WebhookDeliveryDocument,
)
from models.stored import stored_name
from services.database import translated_database_faults

_CREATED_AT = stored_name(StudyDocument.created_at)
_UPDATED_AT = stored_name(StudyDocument.updated_at)
_STUDY_INSTANCE_UID = stored_name(StudyDocument.study_instance_uid)
_DELETED_AT = stored_name(DeletedStudyDocument.deleted_at)
_DUE_AT = stored_name(WebhookDeliveryDocument.due_at)
_QUEUED_AT = stored_name(WebhookDeliveryDocument.queued_at)
_ORTHANC_STUDY_ID = stored_name(WebhookDeliveryDocument.orthanc_study_id)

CREATED, UPDATED, STABLE, DELETED = "created", "updated", "stable", "deleted"

_CURSOR = "webhooks"
_OVERLAP = timedelta(seconds=30)
"""How far before the cursor studies are read: clocks differ, and writes take time."""

_BURST = timedelta(seconds=1)
"""Changes within it are one event: 500 arriving images are not 500 deliveries."""

_PAGE = 1_000
_SEEN = 100_000


def receiver_of(url: str) -> str:
    """Return a name for a receiver, because its URL may contain a secret."""
    return hashlib.sha256(url.encode()).hexdigest()[:16]


class WebhookQueue:
    """The deliveries.

    Args:
        database: Where studies and deliveries are.
        receivers: Their names, from `receiver_of`.
        stable_seconds: Seconds without a change after which a study is stable.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        receivers: Sequence[str],
        *,
        stable_seconds: float,
    ) -> None:
        self._studies = database[StudyDocument.Settings.name]
        self._deleted = database[DeletedStudyDocument.Settings.name]
        self._cursors = database[StudyCursorDocument.Settings.name]
        self._deliveries = database[WebhookDeliveryDocument.Settings.name]
        self._receivers = receivers
        self._stable = timedelta(seconds=stable_seconds)
        # Changes in the overlap of the next read that are queued already; another process queues
        # them again.
        self._seen: TTLCache[tuple[str, datetime], bool] = TTLCache(
            _SEEN, 4 * _OVERLAP.total_seconds()
        )
        self._known: TTLCache[str, bool] = TTLCache(_SEEN, 4 * _OVERLAP.total_seconds())

    async def start(self, now: datetime) -> None:
        """Create the cursor if there is none, and delete deliveries of former receivers.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            await self._cursors.update_one(
                {"_id": _CURSOR}, {"$setOnInsert": {"reached": now}}, upsert=True
            )
            await self._deliveries.delete_many({"receiver": {"$nin": list(self._receivers)}})

    async def fill(self, now: datetime) -> int:
        """Queue what happened since the cursor, then move it.

        Args:
            now: The clock.

        Returns:
            The number of new changes.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            cursor = await self._cursors.find_one({"_id": _CURSOR})
            since = (cursor["reached"] if cursor else now) - _OVERLAP
            count = 0
            async for page in self._pages(since):
                await self._queue(page, since, now)
                count += len(page)
            await self._cursors.update_one(
                {"_id": _CURSOR}, {"$max": {"reached": now}}, upsert=True
            )
        return count

    async def _pages(self, since: datetime) -> AsyncIterator[list[Mapping[str, Any]]]:
        """Yield new changes, deletions first, so that a study that was stored again exists."""
        page: list[Mapping[str, Any]] = []
        for collection, moment in ((self._deleted, _DELETED_AT), (self._studies, _UPDATED_AT)):
            shown = (_STUDY_INSTANCE_UID, _CREATED_AT, moment)
            found = collection.find({moment: {"$gte": since}}, shown).sort([(moment, 1)])
            async for document in found:
                if (document["_id"], document[moment]) not in self._seen:
                    page.append(document)
                if len(page) >= _PAGE:
                    yield page
                    page = []
        if page:
            yield page

    async def _queue(
        self, changes: Sequence[Mapping[str, Any]], since: datetime, now: datetime
    ) -> None:
        writes: list[UpdateOne | DeleteOne] = []
        for change in changes:
            for receiver in self._receivers:
                writes += self._writes(receiver, change, since, now)
        await self._deliveries.bulk_write(writes, ordered=True)
        for change in changes:
            self._seen[change["_id"], _moment(change)] = True
            if _DELETED_AT in change:
                self._known.pop(change["_id"], None)
            else:
                self._known[change["_id"]] = True

    def _writes(
        self, receiver: str, change: Mapping[str, Any], since: datetime, now: datetime
    ) -> list[UpdateOne | DeleteOne]:
        study_id = change["_id"]
        name = f"{receiver}/{study_id}"
        of_change, of_stable = f"{name}/change", f"{name}/stable"
        common = {
            "receiver": receiver,
            _ORTHANC_STUDY_ID: study_id,
            _STUDY_INSTANCE_UID: change[_STUDY_INSTANCE_UID],
            "version": _version_of(of_change, change),
            "attempts": {"$ifNull": ["$attempts", 0]},
            _QUEUED_AT: {"$ifNull": [f"${_QUEUED_AT}", now]},
        }
        if _DELETED_AT in change:
            deleted = {**common, "kind": DELETED, _DUE_AT: now}
            return [
                UpdateOne({"_id": of_change}, [{"$set": deleted}], upsert=True),
                DeleteOne({"_id": of_stable}),
            ]
        kind: object = CREATED
        if study_id in self._known or change[_CREATED_AT] < since:
            # If the receiver did not get the creation yet, the study is still new to it.
            kind = {"$cond": [{"$eq": ["$kind", CREATED]}, CREATED, UPDATED]}
        due = {"$ifNull": [f"${_DUE_AT}", now + _BURST]}
        settled = max(now, _moment(change) + self._stable)
        stable = {
            "kind": STABLE,
            "version": _version_of(of_stable, change),
            _DUE_AT: settled,
            _QUEUED_AT: settled,
        }
        return [
            UpdateOne(
                {"_id": of_change},
                [{"$set": {**common, "kind": kind, _DUE_AT: due}}],
                upsert=True,
            ),
            UpdateOne(
                {"_id": of_stable},
                [{"$set": {**common, **stable}}],
                upsert=True,
            ),
        ]

    async def due(self, receiver: str, now: datetime, limit: int) -> Sequence[Mapping[str, Any]]:
        """Return the deliveries to a receiver that are due, the oldest first.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            found = self._deliveries.find({"receiver": receiver, _DUE_AT: {"$lte": now}})
            return await found.sort([(_DUE_AT, 1)]).limit(limit).to_list()

    async def remove(self, delivery: Mapping[str, Any]) -> None:
        """Remove a delivery that has ended, unless another change was merged into it since.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            await self._deliveries.delete_one(
                {"_id": delivery["_id"], "version": delivery["version"]}
            )

    async def postpone(self, delivery: Mapping[str, Any], until: datetime) -> None:
        """Record a failed attempt.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            await self._deliveries.update_one(
                {"_id": delivery["_id"], "version": delivery["version"]},
                {"$set": {_DUE_AT: until}, "$inc": {"attempts": 1}},
            )


def _version_of(name: str, change: Mapping[str, Any]) -> str:
    """Return a version of a delivery, the same in every process that finds the change."""
    said = f"{name} {_moment(change).timestamp():.3f}"
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def _moment(change: Mapping[str, Any]) -> datetime:
    moment: datetime = change[_DELETED_AT if _DELETED_AT in change else _UPDATED_AT]
    return moment
