"""Jobs in MongoDB: started, claimed by a runner, ended, listed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pydantic import BaseModel
from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from models import DicomErrorRecord, JobDocument, JobKind, JobState
from models.job import ACTIVE_STATES, JobScope
from models.stored import stored_name
from services.auth.roles import Principal, Role
from services.database import translated_database_faults
from services.jobs.handler import JobLost
from services.query.paging import Order, Page, PageRequest, make_page, plan_page
from services.query.tree import StoredFields
from services.query.visibility import MongoFilter, both

_ATTEMPTS = stored_name(JobDocument.attempts)
_CREATED_AT = stored_name(JobDocument.created_at)
_CREATED_BY = stored_name(JobDocument.created_by)
_KIND = stored_name(JobDocument.kind)
_LANE = stored_name(JobDocument.lane)
_MODALITY = stored_name(JobDocument.modality)
_NEXT_ATTEMPT_AT = stored_name(JobDocument.next_attempt_at)
_ONCE = stored_name(JobDocument.once)
_ORTHANC_STUDY_IDS = stored_name(JobDocument.orthanc_study_ids)
_RESULT_STUDY_IDS = stored_name(JobDocument.result_study_ids)
_RUNNER = stored_name(JobDocument.runner)
_SCOPE = stored_name(JobDocument.scope)
_SCOPE_LABELS = f"{_SCOPE}.{stored_name(JobScope.labels)}"
_SCOPE_STUDY_IDS = f"{_SCOPE}.{stored_name(JobScope.study_ids)}"
_SEEN_BY = stored_name(JobDocument.seen_by)
_STARTED_AT = stored_name(JobDocument.started_at)
_STATE = stored_name(JobDocument.state)
_STUDY_INSTANCE_UIDS = stored_name(JobDocument.study_instance_uids)

NEWEST_FIRST = Order(_CREATED_AT, ascending=False)

_ACTIVE = {"$in": list(ACTIVE_STATES)}

JOBS_OF_STUDY_MAX = 20
"""Jobs that a study shows: the newest."""

FRESH_ATTEMPT: Mapping[str, Any] = {
    "error": None,
    "failures": [],
    "completed": 0,
    "failed": 0,
    "warnings": 0,
}
"""What an attempt begins with, by attributes."""

ACTIVE_MAX = 200
"""Jobs under way that one look-up returns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCriteria:
    """Which jobs; what is None does not narrow.

    Attributes:
        study_instance_uid: Of a study that it is about.
        modality: Name of the modality that it talks to.
    """

    kinds: Collection[JobKind] | None = None
    states: Collection[JobState] | None = None
    study_instance_uid: str | None = None
    modality: str | None = None


def visible_to(principal: Principal) -> MongoFilter:
    """Return the filter of the jobs that a principal may know of.

    Administrators know of all. Others know of those that they started, or asked for as well, within
    the scope that they have now: who has lost a label no longer sees what was started under it.
    """
    if principal.role >= Role.ADMIN:
        return {}
    filter_: MongoFilter = {_SEEN_BY: principal.name}
    scope = principal.scope
    if scope.labels is not None:
        known = sorted(scope.labels)
        filter_[_SCOPE_LABELS] = {"$elemMatch": {"$in": known}, "$not": _beyond(known)}
    if scope.study_ids is not None:
        ids = sorted(scope.study_ids)
        filter_[_SCOPE_STUDY_IDS] = {"$elemMatch": {"$in": ids}, "$not": _beyond(ids)}
    return filter_


def _beyond(known: list[str]) -> dict[str, Any]:
    return {"$elemMatch": {"$nin": known}}


def is_visible_to(principal: Principal, job: JobDocument) -> bool:
    """Return whether a principal may know of a job; the same rule as `visible_to`."""
    if principal.role >= Role.ADMIN:
        return True
    if principal.name not in job.seen_by:
        return False
    scope, started_in = principal.scope, job.scope
    return _is_within(started_in.labels, scope.labels) and _is_within(
        started_in.study_ids, scope.study_ids
    )


def _is_within(inner: Sequence[str] | None, outer: frozenset[str] | None) -> bool:
    return outer is None or (bool(inner) and outer.issuperset(inner or ()))


class JobStore:
    """The jobs in MongoDB.

    Args:
        database: An open database.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._jobs = database[JobDocument.Settings.name]

    async def add(self, job: JobDocument) -> JobDocument:
        """Add a job, or return the active one that has the same `once`.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            while True:
                try:
                    await self._jobs.insert_one(_stored(job))
                except DuplicateKeyError:
                    same = await self._jobs.find_one_and_update(
                        {_ONCE: job.once},
                        {"$addToSet": {_SEEN_BY: job.created_by}},
                        return_document=ReturnDocument.AFTER,
                    )
                    if same is not None:
                        return JobDocument.model_validate(same)
                    # It has just ended.
                else:
                    return job

    async def find(self, job_id: str) -> JobDocument | None:
        """Read a job."""
        with translated_database_faults():
            found = await self._jobs.find_one({"_id": job_id})
        return None if found is None else JobDocument.model_validate(found)

    async def page(
        self, request: PageRequest, criteria: JobCriteria, visible: MongoFilter, *, max_size: int
    ) -> Page:
        """Read a page of jobs, the newest first.

        Args:
            request: Which part.
            criteria: Of the list.
            visible: What the caller may know of.
            max_size: Largest page.

        Raises:
            InvalidInput: The page makes no sense.
            DatabaseUnavailable: MongoDB does not answer.
        """
        plan = plan_page(request, NEWEST_FIRST, max_size=max_size)
        filter_ = both(_matching(criteria), visible, plan.filter)
        with translated_database_faults():
            found = self._jobs.find(filter_, sort=list(plan.sort), limit=plan.limit)
            documents = await found.to_list()
        return make_page(plan, NEWEST_FIRST, documents)

    async def count(self, criteria: JobCriteria, visible: MongoFilter) -> int:
        """Count the jobs of a whole list; arguments as those of `page`."""
        with translated_database_faults():
            return int(await self._jobs.count_documents(both(_matching(criteria), visible)))

    async def count_active(self, created_by: str) -> int:
        """Count the jobs of a principal that have not ended."""
        with translated_database_faults():
            count = await self._jobs.count_documents({_STATE: _ACTIVE, _CREATED_BY: created_by})
        return int(count)

    async def active(
        self,
        visible: MongoFilter,
        *,
        kind: JobKind | None,
        modality: str | None,
        study_instance_uids: Sequence[str] | None,
    ) -> list[JobDocument]:
        """Read jobs that have not ended, the oldest first; at most 200."""
        narrowed: MongoFilter = {_STATE: _ACTIVE}
        if kind is not None:
            narrowed[_KIND] = kind
        if modality is not None:
            narrowed[_MODALITY] = modality
        if study_instance_uids is not None:
            narrowed[_STUDY_INSTANCE_UIDS] = {"$in": list(study_instance_uids)}
        with translated_database_faults():
            found = self._jobs.find(
                both(narrowed, visible), sort=[(_CREATED_AT, 1)], limit=ACTIVE_MAX
            )
            return [JobDocument.model_validate(one) for one in await found.to_list()]

    async def of_studies(
        self, study_ids: Sequence[str], visible: MongoFilter
    ) -> list[list[StoredFields]]:
        """Read the newest jobs of studies: what is about them, and what they came of.

        Args:
            study_ids: Orthanc's identifiers.
            visible: What the caller may know of.

        Returns:
            At most 20 stored jobs of each study, the newest first, in the order of the studies.
        """
        wanted = list(study_ids)
        about: MongoFilter = {
            "$or": [{_ORTHANC_STUDY_IDS: {"$in": wanted}}, {_RESULT_STUDY_IDS: {"$in": wanted}}]
        }
        with translated_database_faults():
            found = await self._jobs.find(
                both(about, visible),
                sort=[(_CREATED_AT, -1), ("_id", -1)],
                limit=JOBS_OF_STUDY_MAX * max(1, len(wanted)),
            ).to_list()
        jobs: dict[str, list[StoredFields]] = {study_id: [] for study_id in wanted}
        for job in found:
            subjects = {*job.get(_ORTHANC_STUDY_IDS, ()), *job.get(_RESULT_STUDY_IDS, ())}
            for study_id in subjects & jobs.keys():
                if len(jobs[study_id]) < JOBS_OF_STUDY_MAX:
                    jobs[study_id].append(job)
        return [jobs[study_id] for study_id in wanted]

    async def cancel(self, job_id: str, end: Mapping[str, Any]) -> JobDocument | None:
        """Cancel a job: at once where nothing was begun, else by its runner.

        Args:
            job_id: Which.
            end: Attributes of a job that has ended now as CANCELLED.

        Returns:
            The job, None when it has ended already.
        """
        untouched = {"_id": job_id, _STATE: JobState.QUEUED, _STARTED_AT: None}
        active = {"_id": job_id, _STATE: _ACTIVE}
        with translated_database_faults():
            return await self._change(untouched, end) or await self._change(
                active, {"state": JobState.CANCELLING, "error": None}
            )

    async def cancel_all(
        self, created_by: str, *, before: datetime | None = None, error: DicomErrorRecord | None
    ) -> int:
        """Cancel the jobs of a principal; their runner ends them.

        Args:
            created_by: Name of the principal.
            before: Only those that were started before, with time zone; None: all.
            error: Why, as they show it.

        Returns:
            How many.
        """
        of_principal: MongoFilter = {
            _STATE: {"$in": [JobState.QUEUED, JobState.RUNNING]},
            _CREATED_BY: created_by,
        }
        if before is not None:
            of_principal[_CREATED_AT] = {"$lt": before}
        with translated_database_faults():
            result = await self._jobs.update_many(
                of_principal, _update({"state": JobState.CANCELLING, "error": error})
            )
        return int(result.modified_count)

    async def starters(self) -> list[str]:
        """Return the names of the principals who have jobs that have not ended."""
        with translated_database_faults():
            return [str(one) for one in await self._jobs.distinct(_CREATED_BY, {_STATE: _ACTIVE})]

    async def queue_again(self, job: JobDocument) -> JobDocument | None:
        """Queue a job that ended other than SUCCEEDED, with its checkpoint.

        Returns:
            The job, None when it has not ended that way, or when the same is under way.
        """
        states = [JobState.FAILED, JobState.PARTIAL, JobState.CANCELLED]
        with translated_database_faults():
            try:
                return await self._change(
                    {"_id": job.id, _STATE: {"$in": states}},
                    {
                        "state": JobState.QUEUED,
                        "once": job.key,
                        "attempts": 0,
                        "next_attempt_at": None,
                        "finished_at": None,
                        "expires_at": None,
                        **FRESH_ATTEMPT,
                    },
                )
            except DuplicateKeyError:
                return None

    async def claim(
        self,
        runner: int,
        kinds: Collection[JobKind],
        *,
        busy_lanes: Collection[str],
        with_modality: bool,
        after: str,
        now: datetime,
    ) -> JobDocument | None:
        """Take the oldest job that is due of the next principal, for a runner; None: there is none.

        Principals take turns, so that the thousand jobs of one do not keep the others waiting.

        Args:
            runner: Token of its lease.
            kinds: What it can run.
            busy_lanes: Lanes in which a job runs.
            with_modality: Whether it may be one that talks to a modality.
            after: Name of the principal whose turn was the last.
            now: The time, with time zone.
        """
        due: MongoFilter = {
            _STATE: JobState.QUEUED,
            _KIND: {"$in": sorted(kinds)},
            _LANE: {"$nin": sorted(busy_lanes)},
            # None as well.
            _NEXT_ATTEMPT_AT: {"$not": {"$gt": now}},
        }
        if not with_modality:
            due[_MODALITY] = None
        for names in ({"$gt": after}, {"$lte": after}):
            with translated_database_faults():
                found = await self._jobs.find_one_and_update(
                    {**due, _CREATED_BY: names},
                    _begun(runner, now),
                    sort=[(_CREATED_BY, 1), (_CREATED_AT, 1)],
                    return_document=ReturnDocument.AFTER,
                )
            if found is not None:
                return JobDocument.model_validate(found)
        return None

    async def any_active(self) -> bool:
        """Return whether there is a job that has not ended."""
        with translated_database_faults():
            return await self._jobs.find_one({_STATE: _ACTIVE}, {"_id": 1}) is not None

    async def cancelled(self, runner: int) -> list[JobDocument]:
        """Read the jobs of a runner that somebody has cancelled, at most 200."""
        with translated_database_faults():
            found = self._jobs.find(
                {_STATE: JobState.CANCELLING, _RUNNER: runner}, limit=ACTIVE_MAX
            )
            return [JobDocument.model_validate(one) for one in await found.to_list()]

    async def take_over(
        self, runner: int, kinds: Collection[JobKind], *, running: Collection[str]
    ) -> None:
        """Take over jobs that nobody runs: they are queued, or, when cancelled, this runner's.

        Args:
            runner: Token of its lease.
            kinds: What it can run.
            running: What it runs.
        """
        orphaned: MongoFilter = {
            "_id": {"$nin": sorted(running)},
            _KIND: {"$in": sorted(kinds)},
            "$or": [{_RUNNER: None}, {_RUNNER: {"$lte": runner}}],
        }
        with translated_database_faults():
            await self._jobs.update_many(
                orphaned | {_STATE: JobState.CANCELLING}, {"$set": {_RUNNER: runner}}
            )
            await self._jobs.update_many(
                orphaned | {_STATE: JobState.RUNNING},
                {"$set": {_STATE: JobState.QUEUED}, "$unset": {_RUNNER: ""}},
            )

    async def queue_later(
        self,
        job_id: str,
        runner: int,
        *,
        error: DicomErrorRecord | None,
        next_attempt_at: datetime | None,
        is_counted: bool,
    ) -> bool:
        """Queue a job again that a runner holds.

        Args:
            job_id: Which.
            runner: Token of its lease.
            error: Shown while it waits.
            next_attempt_at: When it is due; None: at once.
            is_counted: Whether the attempt counts.

        Returns:
            False when somebody has cancelled it.

        Raises:
            JobLost: The runner does not hold it any more.
            DatabaseUnavailable: MongoDB does not answer.
        """
        update = _update(
            {
                "state": JobState.QUEUED,
                "runner": None,
                "error": error,
                "next_attempt_at": next_attempt_at,
            }
        )
        update["$inc"] = {_ATTEMPTS: 0 if is_counted else -1}
        with translated_database_faults():
            held = {"_id": job_id, _RUNNER: runner}
            result = await self._jobs.update_one(held | {_STATE: JobState.RUNNING}, update)
            if result.matched_count:
                return True
            if await self._jobs.find_one(held | {_STATE: JobState.CANCELLING}) is None:
                raise JobLost
        return False

    async def write(self, job_id: str, runner: int, changes: Mapping[str, Any]) -> None:
        """Change a job that a runner holds.

        Args:
            job_id: Which.
            runner: Token of its lease.
            changes: By attribute names; None removes a field.

        Raises:
            JobLost: The runner does not hold it any more.
            DatabaseUnavailable: MongoDB does not answer.
        """
        held = {"_id": job_id, _RUNNER: runner}
        held |= {_STATE: {"$in": [JobState.RUNNING, JobState.CANCELLING]}}
        with translated_database_faults():
            changed = await self._change(held, changes)
        if changed is None:
            raise JobLost

    async def _change(
        self, filter_: Mapping[str, Any], changes: Mapping[str, Any]
    ) -> JobDocument | None:
        found = await self._jobs.find_one_and_update(
            filter_, _update(changes), return_document=ReturnDocument.AFTER
        )
        return None if found is None else JobDocument.model_validate(found)


def _begun(runner: int, now: datetime) -> dict[str, Any]:
    """Return the update of a job whose next attempt begins."""
    begun = {
        **FRESH_ATTEMPT,
        "state": JobState.RUNNING,
        "runner": runner,
        "started_at": now,
        "next_attempt_at": None,
    }
    return _update(begun) | {"$inc": {_ATTEMPTS: 1}}


def _matching(criteria: JobCriteria) -> MongoFilter:
    filter_: MongoFilter = {}
    if criteria.kinds is not None:
        filter_[_KIND] = {"$in": sorted(criteria.kinds)}
    if criteria.states is not None:
        filter_[_STATE] = {"$in": sorted(criteria.states)}
    if criteria.study_instance_uid is not None:
        filter_[_STUDY_INSTANCE_UIDS] = criteria.study_instance_uid
    if criteria.modality is not None:
        filter_[_MODALITY] = criteria.modality
    return filter_


def _stored(job: JobDocument) -> dict[str, Any]:
    return job.model_dump(by_alias=True, exclude_none=True)


def _update(changes: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the update for attributes by their names; what is None is removed."""
    sets: dict[str, Any] = {}
    unsets: dict[str, Any] = {}
    for attribute, value in changes.items():
        name = str(JobDocument.model_fields[attribute].alias)
        if value is None:
            unsets[name] = ""
        elif isinstance(value, BaseModel):
            sets[name] = value.model_dump(by_alias=True, exclude_none=True)
        else:
            sets[name] = value
    update = {"$set": sets, "$unset": unsets}
    return {operator: fields for operator, fields in update.items() if fields}
