"""Labels for new studies, by who sent them and what their files say (LABEL_RULES)."""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cachetools import TTLCache
from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, StudyCursorDocument, StudyDocument
from models.stored import stored_name
from services.audit import Action, Audit, AuditEvent
from services.auth.scope import ALL
from services.database import translated_database_faults
from services.errors import (
    InvalidInput,
    NotFound,
    OrthancNotFound,
    OrthancRefused,
)
from services.labels.service import Labels
from services.orthanc.client import OrthancClient
from services.settings import LabelRule
from services.sync.lease import Lease

_log = logging.getLogger(__name__)

_CREATED_AT = stored_name(StudyDocument.created_at)
_INSTITUTION_NAME = stored_name(StudyDocument.institution_name)
_ISSUER_OF_PATIENT_ID = stored_name(StudyDocument.issuer_of_patient_id)
_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_INDEXED_AT = stored_name(InstanceDocument.indexed_at)

_LEASE = "label-rules"
_LOOK_SECONDS = 0.5
_OVERLAP = timedelta(seconds=30)
"""Studies are looked at for this much longer: clocks of processes differ, and writes take time."""

_STUDIES_AT_ONCE = 500
_SEEN = 100_000

_REMOTE_AET = "RemoteAET"
"""Orthanc's metadata of an instance: who sent it by C-STORE; absent for uploads."""


class LabelRules:
    """Applies the rules, in one process of all.

    Args:
        database: Where the studies are.
        labels: Sets labels.
        orthanc: Knows who sent an instance.
        audit: Every label that a rule sets is recorded.
        rules: What they say.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        labels: Labels,
        orthanc: OrthancClient,
        audit: Audit,
        rules: Sequence[LabelRule],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._studies = database[StudyDocument.Settings.name]
        self._instances = database[InstanceDocument.Settings.name]
        self._cursors = database[StudyCursorDocument.Settings.name]
        self._labels = labels
        self._orthanc = orthanc
        self._audit = audit
        self._rules = rules
        self._now = now
        self._lease = Lease(database, _LEASE)
        # Studies of the overlap that have their labels; another process gives them again.
        self._seen: TTLCache[tuple[str, datetime], bool] = TTLCache(
            _SEEN, 4 * _OVERLAP.total_seconds()
        )

    async def run(self) -> None:
        """Apply the rules while this process holds the lease, until cancelled."""
        await self._lease.repeat("label rules", self.apply, pause_seconds=_LOOK_SECONDS)

    async def apply(self) -> None:
        """Give labels to the studies that came since the last call, whichever process made it.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
            OrthancUnavailable: Orthanc does not answer.
        """
        now = self._now()
        with translated_database_faults():
            await self._cursors.update_one(
                {"_id": _LEASE}, {"$setOnInsert": {"reached": now}}, upsert=True
            )
            cursor = await self._cursors.find_one({"_id": _LEASE})
            since = cursor["reached"] - _OVERLAP if cursor else now
            found = self._studies.find(
                {_CREATED_AT: {"$gte": since}},
                (_CREATED_AT, _INSTITUTION_NAME, _ISSUER_OF_PATIENT_ID),
            ).sort([(_CREATED_AT, 1)])
            batch: list[Mapping[str, Any]] = []
            async for study in found:
                if _key(study) not in self._seen:
                    batch.append(study)
                if len(batch) >= _STUDIES_AT_ONCE:
                    break
        for new in batch:
            await self._apply_to(new)
            self._seen[_key(new)] = True
        reached = batch[-1][_CREATED_AT] if len(batch) >= _STUDIES_AT_ONCE else now
        with translated_database_faults():
            await self._cursors.update_one({"_id": _LEASE}, {"$max": {"reached": reached}})

    async def _apply_to(self, study: Mapping[str, Any]) -> None:
        sender = None
        if any(rule.calling_ae_title is not None for rule in self._rules):
            sender = await self._sender_of(study["_id"])
        labels = labels_for(
            self._rules,
            calling_ae_title=sender,
            institution_name=study.get(_INSTITUTION_NAME),
            issuer_of_patient_id=study.get(_ISSUER_OF_PATIENT_ID),
        )
        if not labels:
            return
        try:
            await self._labels.add(study["_id"], labels, ALL)
        except NotFound:
            return  # It was deleted a moment ago.
        except InvalidInput as exc:
            # One study must not keep all others waiting.
            _log.warning("study %s has not got its labels: %s", study["_id"], exc.message)
            return
        event = AuditEvent(
            action=Action.LABEL,
            principal=None,
            correlation_id="-",
            client_address=None,
            detail="LABEL_RULES",
        )
        event.study_ids.add(study["_id"])
        await self._audit.enqueue(event)

    async def _sender_of(self, study_id: str) -> str | None:
        """Return the calling AE title of the first image of a study, None when it was uploaded."""
        with translated_database_faults():
            first = await self._instances.find_one(
                {_ORTHANC_STUDY_ID: study_id}, ("_id",), sort=[(_INDEXED_AT, 1)]
            )
        if first is None:
            return None
        try:
            stored = await self._orthanc.stored_files([first["_id"]])
        except (OrthancNotFound, OrthancRefused) as exc:
            # One study must not keep all others waiting.
            _log.warning("the sender of study %s is unknown: %s", study_id, exc.code)
            return None
        return stored[0].metadata.get(_REMOTE_AET) if stored else None


def _key(study: Mapping[str, Any]) -> tuple[str, datetime]:
    """Return what a study is known by: one that was deleted and sent again is a new one."""
    return study["_id"], study[_CREATED_AT]


def labels_for(
    rules: Sequence[LabelRule],
    *,
    calling_ae_title: str | None,
    institution_name: str | None,
    issuer_of_patient_id: str | None,
) -> list[str]:
    """Return the labels of the rules whose conditions all match, each once.

    Values are compared letter by letter, without the blanks around them.

    Args:
        rules: In their order.
        calling_ae_title: Of the sender, None when it is unknown.
        institution_name: Of the study.
        issuer_of_patient_id: Of the study.
    """

    def matches(rule: LabelRule) -> bool:
        pairs = (
            (rule.calling_ae_title, calling_ae_title),
            (rule.institution_name, institution_name),
            (rule.issuer_of_patient_id, issuer_of_patient_id),
        )
        return all(
            wanted is None or wanted.strip() == (found or "").strip() for wanted, found in pairs
        )

    return list(dict.fromkeys(rule.label for rule in rules if matches(rule)))
