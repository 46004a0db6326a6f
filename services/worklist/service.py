"""Planned examinations in MongoDB: made, changed, listed.

They are no part of any study, so principals who are limited to some studies neither see nor change
them. `services.worklist.folder` serves the open ones to scanners, and `services.worklist.arrivals`
completes those whose studies came.
"""

import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any

from pymongo import ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase

from models import StudyDocument, WorklistEntryDocument
from models.names import contract_name
from models.stored import stored_name
from models.worklist import OPEN_STATUSES, WorklistStatus
from services.auth.scope import Scope
from services.database import translated_database_faults
from services.dicom.values import clean_identifier
from services.errors import Forbidden, InvalidInput, NotFound
from services.index.optimistic_locking import new_version
from services.index.record import to_stored_precision
from services.query.paging import Order, Page, PageRequest, make_page, plan_page
from services.worklist.entry import EntryValues, checked, with_identifiers

_STATUS = stored_name(WorklistEntryDocument.status)
_VERSION = stored_name(WorklistEntryDocument.version)
_PATIENT_ID = stored_name(WorklistEntryDocument.patient_id)
_ISSUER_OF_PATIENT_ID = stored_name(WorklistEntryDocument.issuer_of_patient_id)
_ACCESSION_NUMBER = stored_name(WorklistEntryDocument.accession_number)
_MODALITY = stored_name(WorklistEntryDocument.modality)
_AE_TITLE = stored_name(WorklistEntryDocument.scheduled_station_ae_title)
_STEP_ID = stored_name(WorklistEntryDocument.scheduled_procedure_step_id)
_STUDY_INSTANCE_UID = stored_name(WorklistEntryDocument.study_instance_uid)
_ORDER_SCHEDULED = stored_name(WorklistEntryDocument.order_scheduled)
_ORTHANC_STUDY_ID = stored_name(WorklistEntryDocument.orthanc_study_id)
_OPENED_AT = stored_name(WorklistEntryDocument.opened_at)
_UPDATED_AT = stored_name(WorklistEntryDocument.updated_at)

IS_OPEN: dict[str, Any] = {_STATUS: {"$in": [one.value for one in OPEN_STATUSES]}}

EARLIEST_FIRST = Order(_ORDER_SCHEDULED, ascending=True)

_ID_BYTES = 16

_AFTER_EVERY_TIME = "~"
"""Sorts behind `T` and all digits: the end of a day in `orderScheduled`."""

_VALUES_MAX = 500
"""Values in one list of a filter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorklistCriteria:
    """Which entries; all parts that are given must match.

    Attributes:
        patient_id: Exact PatientID, padding ignored.
        accession_number: Exact AccessionNumber.
        modalities: Any of these, in whatever case; an empty list matches nothing.
        scheduled_station_ae_title: Exact AE title.
        start_date_from: First day, inclusive.
        start_date_to: Last day, inclusive.
        statuses: Any of these; an empty list matches nothing.
    """

    patient_id: str | None = None
    accession_number: str | None = None
    modalities: Sequence[str] | None = None
    scheduled_station_ae_title: str | None = None
    start_date_from: date | None = None
    start_date_to: date | None = None
    statuses: Sequence[WorklistStatus] | None = None


class Worklist:
    """Makes, changes and lists entries.

    Args:
        database: An open database.
        page_max_size: Largest page.
        on_changed: Awaited when an entry has changed, before its caller is answered; None: nothing.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        *,
        page_max_size: int,
        on_changed: Callable[[], Awaitable[None]] | None = None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._entries = database[WorklistEntryDocument.Settings.name]
        self._studies = database[StudyDocument.Settings.name]
        self._page_max_size = page_max_size
        self._on_changed = on_changed
        self._now = now

    async def create(self, values: EntryValues, scope: Scope) -> WorklistEntryDocument:
        """Plan an examination.

        Args:
            values: What is planned.
            scope: Of the caller.

        Raises:
            Forbidden: The caller is limited to some studies.
            InvalidInput: A value is not allowed, or belongs to another patient's examination.
            DatabaseUnavailable: MongoDB does not answer.
        """
        _require_all(scope)
        fields = with_identifiers(checked(values))
        await self._refuse_mix_up(fields, except_id=None)
        now = to_stored_precision(self._now())
        entry: WorklistEntryDocument = WorklistEntryDocument.model_construct(
            id=secrets.token_hex(_ID_BYTES),
            version=new_version(),
            status=WorklistStatus.SCHEDULED,
            **fields,
            order_scheduled=_order_of(fields),
            opened_at=now,
            created_at=now,
            updated_at=now,
        )
        with translated_database_faults():
            await self._entries.insert_one(entry.model_dump(by_alias=True, exclude_none=True))
        await self._announce()
        return entry

    async def update(
        self, entry_id: str, values: EntryValues, scope: Scope
    ) -> WorklistEntryDocument:
        """Replace what is planned; identifiers that are not given stay.

        Args:
            entry_id: Of an entry that is neither completed nor discontinued.
            values: What is planned instead.
            scope: Of the caller.

        Raises:
            Forbidden: The caller is limited to some studies.
            NotFound: There is no such entry.
            InvalidInput: A value is not allowed, belongs to another patient's examination, or the
                entry is closed.
            DatabaseUnavailable: MongoDB does not answer.
        """
        _require_all(scope)
        given = checked(values)
        while True:
            kept = await self._require(entry_id)
            if kept.status not in OPEN_STATUSES:
                raise InvalidInput(
                    f"This entry is {kept.status.value}. Set its status to SCHEDULED first.",
                    argument="id",
                )
            fields = with_identifiers(given, kept)
            await self._refuse_mix_up(fields, except_id=entry_id)
            values_by_name = {contract_name(name): value for name, value in fields.items()}
            values_by_name[_ORDER_SCHEDULED] = _order_of(fields)
            # What another caller changed meanwhile is read again.
            changed = await self._change({"_id": entry_id, _VERSION: kept.version}, values_by_name)
            if changed is not None:
                return changed

    async def set_status(
        self, entry_id: str, status: WorklistStatus, scope: Scope
    ) -> WorklistEntryDocument:
        """Set the status of an entry; any may follow any.

        One that is opened again is completed only by what arrives later.

        Raises:
            Forbidden: The caller is limited to some studies.
            NotFound: There is no such entry.
            DatabaseUnavailable: MongoDB does not answer.
        """
        _require_all(scope)
        while True:
            kept = await self._require(entry_id)
            if kept.status is status:
                return kept
            values: dict[str, Any] = {_STATUS: status.value}
            if status in OPEN_STATUSES and kept.status not in OPEN_STATUSES:
                values[_OPENED_AT] = to_stored_precision(self._now())
                values[_ORTHANC_STUDY_ID] = None
            changed = await self._change({"_id": entry_id, _VERSION: kept.version}, values)
            if changed is not None:
                return changed

    async def delete(self, entry_id: str, scope: Scope) -> WorklistEntryDocument | None:
        """Delete an entry.

        Returns:
            The entry as it was; None when there was none.

        Raises:
            Forbidden: The caller is limited to some studies.
            DatabaseUnavailable: MongoDB does not answer.
        """
        _require_all(scope)
        with translated_database_faults():
            deleted = await self._entries.find_one_and_delete({"_id": entry_id})
        if deleted is None:
            return None
        await self._announce()
        return WorklistEntryDocument.model_validate(deleted)

    async def find(self, entry_id: str, scope: Scope) -> WorklistEntryDocument | None:
        """Find an entry; None when there is none that the caller may see."""
        if not scope.is_all:
            return None
        with translated_database_faults():
            found = await self._entries.find_one({"_id": entry_id})
        return None if found is None else WorklistEntryDocument.model_validate(found)

    async def page(self, criteria: WorklistCriteria, request: PageRequest, scope: Scope) -> Page:
        """Read a page of entries, the earliest start first.

        Raises:
            InvalidInput: The page or the criteria make no sense.
            DatabaseUnavailable: MongoDB does not answer.
        """
        plan = plan_page(request, EARLIEST_FIRST, max_size=self._page_max_size)
        filter_ = {"$and": [_filter_of(criteria), plan.filter]}
        if not scope.is_all:
            return make_page(plan, EARLIEST_FIRST, [])
        with translated_database_faults():
            found = self._entries.find(filter_, sort=list(plan.sort), limit=plan.limit)
            documents = await found.to_list()
        return make_page(plan, EARLIEST_FIRST, documents)

    async def count(self, criteria: WorklistCriteria, scope: Scope) -> int:
        """Count the entries of the list that `page` reads."""
        if not scope.is_all:
            return 0
        with translated_database_faults():
            return int(await self._entries.count_documents(_filter_of(criteria)))

    async def _announce(self) -> None:
        if self._on_changed is not None:
            await self._on_changed()

    async def _require(self, entry_id: str) -> WorklistEntryDocument:
        with translated_database_faults():
            found = await self._entries.find_one({"_id": entry_id})
        if found is None:
            raise NotFound("There is no such worklist entry.")
        return WorklistEntryDocument.model_validate(found)

    async def _change(
        self, filter_: Mapping[str, Any], values: Mapping[str, Any]
    ) -> WorklistEntryDocument | None:
        """Set values, and remove those that are None; returns None when nothing matched."""
        present = {name: value for name, value in values.items() if value is not None}
        present |= {_VERSION: new_version(), _UPDATED_AT: to_stored_precision(self._now())}
        update: dict[str, Any] = {"$set": present}
        absent = dict.fromkeys((name for name, value in values.items() if value is None), "")
        if absent:
            update["$unset"] = absent
        with translated_database_faults():
            changed = await self._entries.find_one_and_update(
                filter_, update, return_document=ReturnDocument.AFTER
            )
        if changed is None:
            return None
        await self._announce()
        return WorklistEntryDocument.model_validate(changed)

    async def _refuse_mix_up(
        self, fields: Mapping[str, str | None], *, except_id: str | None
    ) -> None:
        """Refuse identifiers of another patient: images of one would be stored as the other's.

        Raises:
            InvalidInput: The StudyInstanceUID or the AccessionNumber is another patient's, or the
                step is planned already.
        """
        uid = fields["study_instance_uid"]
        accession, step = fields["accession_number"], fields["scheduled_procedure_step_id"]
        other = {"_id": {"$ne": except_id}}
        other_patient: dict[str, Any] = {_PATIENT_ID: {"$ne": fields["patient_id"]}}
        if (issuer := fields["issuer_of_patient_id"]) is not None:
            # Studies and entries have the same names for both.
            of_other_issuer = {_ISSUER_OF_PATIENT_ID: {"$nin": [None, issuer]}}
            other_patient = {"$or": [other_patient, of_other_issuer]}
        with translated_database_faults():
            of_uid = {_STUDY_INSTANCE_UID: uid, **other_patient}
            if await self._studies.find_one(of_uid) or await self._entries.find_one(
                {**of_uid, **other}
            ):
                raise InvalidInput(
                    "studyInstanceUID belongs to a study of another patient.",
                    argument="input.studyInstanceUID",
                )
            of_accession = {_ACCESSION_NUMBER: accession, **IS_OPEN, **other}
            if await self._entries.find_one({**of_accession, **other_patient}):
                raise InvalidInput(
                    "accessionNumber belongs to an open entry of another patient.",
                    argument="input.accessionNumber",
                )
            if await self._entries.find_one({**of_accession, _STEP_ID: step}):
                raise InvalidInput(
                    "scheduledProcedureStepID belongs to an open entry of this accessionNumber.",
                    argument="input.scheduledProcedureStepID",
                )


def _require_all(scope: Scope) -> None:
    if not scope.is_all:
        raise Forbidden("The worklist is for those who may see all studies.")


def _order_of(fields: Mapping[str, str | None]) -> str:
    day = fields["scheduled_procedure_step_start_date"]
    return f"{day}T{fields['scheduled_procedure_step_start_time'] or ''}"


def _filter_of(criteria: WorklistCriteria) -> dict[str, Any]:
    filter_: dict[str, Any] = {}
    if criteria.patient_id is not None:
        filter_[_PATIENT_ID] = clean_identifier(criteria.patient_id)
    if criteria.accession_number is not None:
        filter_[_ACCESSION_NUMBER] = criteria.accession_number.strip()
    if criteria.modalities is not None:
        if len(criteria.modalities) > _VALUES_MAX:
            raise InvalidInput(f"modalities: at most {_VALUES_MAX}.", argument="filter.modalities")
        filter_[_MODALITY] = {"$in": sorted({one.strip().upper() for one in criteria.modalities})}
    if criteria.scheduled_station_ae_title is not None:
        filter_[_AE_TITLE] = criteria.scheduled_station_ae_title.strip()
    if criteria.statuses is not None:
        filter_[_STATUS] = {"$in": sorted({one.value for one in criteria.statuses})}
    days: dict[str, str] = {}
    if criteria.start_date_from is not None:
        days["$gte"] = criteria.start_date_from.isoformat()
    if criteria.start_date_to is not None:
        days["$lt"] = criteria.start_date_to.isoformat() + _AFTER_EVERY_TIME
    return {**filter_, _ORDER_SCHEDULED: days} if days else filter_
