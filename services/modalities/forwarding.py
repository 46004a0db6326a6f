"""Forwarding: studies that match a rule are sent to a modality when they are stable.

Each match is a SEND job of its own, so that its queue can be seen, cancelled and retried. A job of
a rule waits for as long as its destination is down. What a rule has sent of a study is remembered
beside the jobs, so that of a study that grows only the rest is sent, and nothing twice.
"""

import fnmatch
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

from pymongo import ReturnDocument
from pymongo.asynchronous.cursor import AsyncCursor
from pymongo.asynchronous.database import AsyncDatabase

from models import (
    ForwardedStudyDocument,
    ForwardingRuleDocument,
    JobDocument,
    JobKind,
    StudyCopyDocument,
    StudyDocument,
)
from models.forwarding import StudyOrigin
from models.modality import DicomService
from models.stored import stored_name
from services.auth.roles import Principal, Role
from services.database import translated_database_faults
from services.dicom.search_words import fold
from services.dicom.values import clean_text
from services.errors import (
    InvalidInput,
    OrthancNotFound,
    OrthancRefused,
    TooManyRequests,
)
from services.index.record import to_stored_precision
from services.jobs.handler import NewJob
from services.jobs.service import Jobs
from services.modalities.declaration import require_name
from services.modalities.service import Modalities
from services.modalities.sources import StudySources
from services.orthanc.client import OrthancClient
from services.sync.lease import Lease
from services.tasks import HANGING_SECONDS, beat

_log = logging.getLogger(__name__)

_CALLING_AE_TITLES = stored_name(ForwardingRuleDocument.calling_ae_titles)
_CHECKED_UNTIL = stored_name(ForwardingRuleDocument.checked_until)
_CREATED_AT = stored_name(ForwardingRuleDocument.created_at)
_EXPIRES_AT = stored_name(ForwardedStudyDocument.expires_at)
_LATEST_INDEXED_AT = stored_name(ForwardedStudyDocument.latest_indexed_at)
_MODALITIES_IN_STUDY = stored_name(StudyDocument.modalities_in_study)
_RULE = stored_name(ForwardedStudyDocument.rule)
_STUDY_DESCRIPTION = stored_name(StudyDocument.study_description)
_STUDY_INSTANCE_UID = stored_name(StudyDocument.study_instance_uid)
_STUDY_UPDATED_AT = stored_name(StudyDocument.updated_at)
_UPDATED_AT = stored_name(ForwardingRuleDocument.updated_at)

_LEASE = "forward-studies"
_LOOK_SECONDS = 1.0
_OVERLAP = timedelta(seconds=30)
"""Studies are looked at for this much longer: clocks of processes differ, and writes take time."""
_KEPT_CHECK = timedelta(minutes=1)
"""How far back a restart looks again at most: a quiet rule is not written every second."""
_BATCH = 200
_REMEMBERED = timedelta(days=730)
"""What was sent of a study is remembered for so long after the last job."""

_RULES_MAX = 100
_VALUES_MAX = 100
_CHARACTERS_MAX = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardingRule:
    """A rule as an administrator declares it; attributes are those of the document."""

    name: str
    destination: str
    modalities: Sequence[str] | None
    calling_ae_titles: Sequence[str] | None
    labels: Sequence[str] | None
    study_description: str | None
    commit: bool
    origins: Sequence[StudyOrigin] = (StudyOrigin.RECEIVED,)

    def checked(self) -> "ForwardingRule":
        """Return it with clean values.

        Raises:
            InvalidInput: Says which argument is wrong.
        """
        require_name(self.name)
        description = clean_text(self.study_description)
        if description is not None and len(description) > _CHARACTERS_MAX:
            message = f"studyDescription: at most {_CHARACTERS_MAX} characters."
            raise InvalidInput(message, argument="studyDescription")
        if not self.origins:
            raise InvalidInput("origins: at least one.", argument="origins")
        modalities = _values("modalities", self.modalities)
        return ForwardingRule(
            name=self.name,
            destination=require_name(self.destination),
            modalities=None if modalities is None else [one.upper() for one in modalities],
            calling_ae_titles=_values("callingAETitles", self.calling_ae_titles),
            labels=_values("labels", self.labels),
            study_description=description,
            commit=self.commit,
            origins=list(dict.fromkeys(self.origins)),
        )


def _values(argument: str, given: Sequence[str] | None) -> list[str] | None:
    if given is None:
        return None
    values = list(dict.fromkeys(filter(None, map(clean_text, given))))
    if not values or len(values) > _VALUES_MAX or any(len(one) > _CHARACTERS_MAX for one in values):
        message = f"{argument}: 1 to {_VALUES_MAX} of 1 to {_CHARACTERS_MAX} characters, or null."
        raise InvalidInput(message, argument=argument)
    return values


def matches(
    rule: ForwardingRuleDocument,
    study: Mapping[str, Any],
    senders: Collection[str],
    origin: StudyOrigin = StudyOrigin.RECEIVED,
) -> bool:
    """Return whether a study is forwarded by a rule.

    Args:
        rule: Which.
        study: As it is stored.
        senders: AE titles that its instances came from.
        origin: How it came into the archive.
    """
    return (
        origin in rule.origins
        and _has_any(rule.modalities, study.get(_MODALITIES_IN_STUDY, ()))
        and _has_any(rule.labels, study.get("labels", ()))
        and _has_any(rule.calling_ae_titles, senders)
        and _is_described(rule.study_description, study.get(_STUDY_DESCRIPTION))
    )


def _has_any(wanted: Collection[str] | None, present: Collection[str]) -> bool:
    return wanted is None or not set(wanted).isdisjoint(present)


def _is_described(pattern: str | None, description: str | None) -> bool:
    if pattern is None:
        return True
    # `[` is a letter like any other here.
    escaped = fold(pattern).replace("[", "[[]")
    return fnmatch.fnmatchcase(fold(description), escaped)


class Forwarding:
    """The rules, and what finds the studies that match them.

    Args:
        database: Where rules, studies and jobs are.
        modalities: Where studies are sent.
        jobs: Gets a job for each match.
        orthanc: Knows who has sent an instance; None while PACS integration is off.
        stable_seconds: A study is stable when nothing new came for so long, in seconds.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        modalities: Modalities,
        jobs: Jobs,
        orthanc: OrthancClient | None,
        *,
        stable_seconds: float,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._rules = database[ForwardingRuleDocument.Settings.name]
        self._forwarded = database[ForwardedStudyDocument.Settings.name]
        self._studies = database[StudyDocument.Settings.name]
        self._copies = database[StudyCopyDocument.Settings.name]
        self._sources = StudySources(database, orthanc)
        self._modalities = modalities
        self._jobs = jobs
        self._stable = timedelta(seconds=stable_seconds)
        self._now = now
        self._lease = Lease(database, _LEASE)

    async def declare(self, rule: ForwardingRule) -> ForwardingRuleDocument:
        """Declare a rule, or change the one of this name; what arrives from now on may match.

        Raises:
            InvalidInput: A value is not allowed, or there are too many rules.
            NotFound: There is no such modality.
            ModalityUnsupported: Nothing may be sent to it.
            DatabaseUnavailable: MongoDB does not answer.
        """
        rule = rule.checked()
        await self._modalities.require_service(
            rule.destination, DicomService.STORE, commit=rule.commit
        )
        now = to_stored_precision(self._now())
        with translated_database_faults():
            others = await self._rules.count_documents({"_id": {"$ne": rule.name}})
            if others >= _RULES_MAX:
                raise InvalidInput(f"There are {_RULES_MAX} rules already.")
            stored = await self._rules.find_one_and_update(
                {"_id": rule.name},
                {
                    "$set": {
                        "destination": rule.destination,
                        "modalities": rule.modalities,
                        _CALLING_AE_TITLES: rule.calling_ae_titles,
                        "labels": rule.labels,
                        _STUDY_DESCRIPTION: rule.study_description,
                        "commit": rule.commit,
                        "origins": [one.value for one in rule.origins],
                        _UPDATED_AT: now,
                    },
                    "$setOnInsert": {_CREATED_AT: now, _CHECKED_UNTIL: now},
                },
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        declared: ForwardingRuleDocument = ForwardingRuleDocument.model_validate(stored)
        return declared

    async def remove(self, name: str) -> bool:
        """Remove a rule; its jobs stay, and no longer wait for a destination that is down.

        Returns:
            Whether there was one.
        """
        with translated_database_faults():
            result = await self._rules.delete_one({"_id": name})
            await self._forwarded.delete_many({_RULE: name})
        return bool(result.deleted_count)

    async def read_all(self) -> list[ForwardingRuleDocument]:
        """Read all rules, by name."""
        with translated_database_faults():
            found = await self._rules.find(sort=[("_id", 1)]).to_list()
        return [ForwardingRuleDocument.model_validate(one) for one in found]

    async def queue(self, name: str) -> list[JobDocument]:
        """Read the jobs of a rule that have not ended, the oldest first; at most 200."""
        return await self._jobs.active(kind=JobKind.SEND, principal=principal_of(name))

    async def run(self) -> None:
        """Start jobs while this process holds the lease, until cancelled."""
        look = partial(self.look, {})
        await self._lease.repeat("forwarding", look, pause_seconds=_LOOK_SECONDS)

    async def look(self, checked: dict[str, datetime]) -> None:
        """Start a job for each study that has become stable and matches a rule.

        Args:
            checked: Until when studies were looked at, by rule; updated.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
            OrthancError: Orthanc does not answer; the rest is looked at again.
        """
        until = to_stored_precision(self._now()) - self._stable
        for rule in await self.read_all():
            since = max(checked.get(rule.id, rule.checked_until), rule.checked_until)
            if since < until:
                checked[rule.id] = await self._look_for(rule, since, until)

    async def _look_for(
        self, rule: ForwardingRuleDocument, since: datetime, until: datetime
    ) -> datetime:
        """Return until when studies have been looked at."""
        # Nothing that was there before the rule is forwarded.
        begin = max(since - _OVERLAP, rule.created_at)
        found = self._studies.find(
            {_STUDY_UPDATED_AT: {"$gt": begin, "$lte": until}}, sort=[(_STUDY_UPDATED_AT, 1)]
        )
        reached, is_full = since, False
        has_started = False
        while not is_full and (studies := await self._next(found)):
            for study, origin in studies:
                beat(HANGING_SECONDS)
                try:
                    has_started |= await self._forward(rule, study, origin)
                except TooManyRequests:
                    # Its queue is full: the rest waits.
                    is_full = True
                    break
                except (OrthancNotFound, OrthancRefused) as exc:
                    # One study must not keep all others waiting.
                    _log.warning("study %s is not forwarded: %s", study["_id"], exc.code)
                reached = max(reached, study[_STUDY_UPDATED_AT])
        reached = reached if is_full else until
        if has_started or reached - rule.checked_until >= _KEPT_CHECK:
            with translated_database_faults():
                await self._rules.update_one({"_id": rule.id}, {"$set": {_CHECKED_UNTIL: reached}})
        return reached

    async def _next(
        self, found: AsyncCursor[dict[str, Any]]
    ) -> list[tuple[Mapping[str, Any], StudyOrigin]]:
        """Read the next studies, with how they came into the archive."""
        with translated_database_faults():
            studies = await found.to_list(_BATCH)
            copies = self._copies.find({"_id": {"$in": [study["_id"] for study in studies]}})
            origins = {one["_id"]: StudyOrigin(one["origin"]) async for one in copies}
        return [(one, origins.get(one["_id"], StudyOrigin.RECEIVED)) for one in studies]

    async def _forward(
        self, rule: ForwardingRuleDocument, study: Mapping[str, Any], origin: StudyOrigin
    ) -> bool:
        """Start a job for a study when it matches and has something new."""
        key = _key(rule.id, rule.destination, study["_id"])
        newest = study.get(_LATEST_INDEXED_AT)
        if rule.labels is None and newest is not None and newest <= rule.created_at:
            # It was there before the rule, and only a label has changed: that is no arrival, unless
            # the rule waits for labels.
            return False
        if not matches(rule, study, rule.calling_ae_titles or (), origin):
            return False
        with translated_database_faults():
            before = await self._forwarded.find_one({"_id": key}, {_LATEST_INDEXED_AT: 1})
        if before is not None and before.get(_LATEST_INDEXED_AT) == newest:
            return False
        senders = await self._sources.senders(study["_id"])
        if not matches(rule, study, senders, origin) and (
            senders or not await self._is_correction(rule, study)
        ):
            return False
        destination = await self._modalities.find(rule.destination)
        is_return = destination is not None and await self._sources.has_all_from(
            destination.ae_title, study["_id"], senders
        )
        if not is_return:
            await self._jobs.start(new_forward(rule, study["_id"], newest), principal_of(rule.id))
        decided = {
            _RULE: rule.id,
            _STUDY_INSTANCE_UID: study[_STUDY_INSTANCE_UID],
            _LATEST_INDEXED_AT: newest,
            _EXPIRES_AT: to_stored_precision(self._now()) + _REMEMBERED,
        }
        with translated_database_faults():
            await self._forwarded.update_one({"_id": key}, {"$set": decided}, upsert=True)
        return not is_return

    async def _is_correction(self, rule: ForwardingRuleDocument, study: Mapping[str, Any]) -> bool:
        """Return whether a rule has forwarded a study before, perhaps as another patient's.

        `modifyStudy` stores the files again, and Orthanc then knows no sender of them.
        """
        of_uid = {_RULE: rule.id, _STUDY_INSTANCE_UID: study[_STUDY_INSTANCE_UID]}
        with translated_database_faults():
            return await self._forwarded.find_one(of_uid, {"_id": 1}) is not None


def _key(rule: str, destination: str, study_id: str) -> str:
    """Return where it is kept what was sent: a rule may get another destination."""
    return f"{rule}/{destination}/{study_id}"


def principal_of(rule: str) -> Principal:
    """Return who starts the jobs of a rule."""
    return Principal(name=f"rule:{rule}", role=Role.UPLOADER)


def new_forward(
    rule: ForwardingRuleDocument, study_id: str, latest_indexed_at: datetime | None
) -> NewJob:
    """Describe the job that forwards a study as it is now.

    Args:
        rule: Which rule.
        study_id: Orthanc's identifier.
        latest_indexed_at: Of the study: when it grows while a job of it runs, another one follows.
    """
    return NewJob(
        kind=JobKind.SEND,
        parameters={"commit": rule.commit, "rule": rule.id},
        orthanc_study_ids=[study_id],
        modality=rule.destination,
        once=f"forward:{rule.id}:{rule.destination}:{study_id}:{latest_indexed_at}",
    )


class ForwardedInstances:
    """What rules have sent, for the jobs that send.

    Args:
        database: Where it is kept.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._rules = database[ForwardingRuleDocument.Settings.name]
        self._forwarded = database[ForwardedStudyDocument.Settings.name]

    async def is_rule(self, name: str) -> bool:
        """Return whether there is a rule of this name."""
        with translated_database_faults():
            return await self._rules.find_one({"_id": name}, {"_id": 1}) is not None

    async def read(self, rule: str, destination: str, study_id: str) -> bytes:
        """Return the marks of what was sent of a study to a destination."""
        key = _key(rule, destination, study_id)
        with translated_database_faults():
            found = await self._forwarded.find_one({"_id": key}, {"sent": 1})
        return bytes((found or {}).get("sent", b""))

    async def write(self, rule: str, destination: str, study_id: str, sent: bytes) -> None:
        """Keep the marks of what was sent of a study to a destination."""
        with translated_database_faults():
            await self._forwarded.update_one(
                {"_id": _key(rule, destination, study_id)},
                {
                    "$set": {"sent": sent},
                    "$setOnInsert": {_RULE: rule, _EXPIRES_AT: datetime.now(UTC) + _REMEMBERED},
                },
                upsert=True,
            )
