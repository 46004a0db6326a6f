"""Entries complete themselves: when the study that was planned has arrived and is stable.

A study is that of an entry when it is of the same patient and has the entry's StudyInstanceUID. A
scanner that makes its own UIDs still copies the AccessionNumber: then the modality must agree as
well, because one order may plan several. A study of another patient completes nothing: the entry
stays open, so that somebody looks at it. The same PatientID of another issuer is another patient's;
where only one of the two names an issuer, the UID or the birth date decides. Neither a label nor a
copy that `modifyStudy` made is an arrival.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import StudyCopyDocument, StudyDocument, WorklistEntryDocument
from models.stored import stored_name
from models.worklist import WorklistStatus
from services.database import translated_database_faults
from services.index.optimistic_locking import new_version
from services.index.record import to_stored_precision
from services.sync.lease import Lease
from services.tasks import HANGING_SECONDS, beat
from services.worklist.service import IS_OPEN

_ACCESSION_NUMBER = stored_name(WorklistEntryDocument.accession_number)
_MODALITY = stored_name(WorklistEntryDocument.modality)
_OPENED_AT = stored_name(WorklistEntryDocument.opened_at)
_ORTHANC_STUDY_ID = stored_name(WorklistEntryDocument.orthanc_study_id)
_ISSUER_OF_PATIENT_ID = stored_name(WorklistEntryDocument.issuer_of_patient_id)
_PATIENT_BIRTH_DATE = stored_name(WorklistEntryDocument.patient_birth_date)
_PATIENT_ID = stored_name(WorklistEntryDocument.patient_id)
_STATUS = stored_name(WorklistEntryDocument.status)
_STUDY_INSTANCE_UID = stored_name(WorklistEntryDocument.study_instance_uid)
_UPDATED_AT = stored_name(WorklistEntryDocument.updated_at)
_VERSION = stored_name(WorklistEntryDocument.version)
_LATEST_INDEXED_AT = stored_name(StudyDocument.latest_indexed_at)
_ACCESSION_NUMBERS = stored_name(StudyDocument.accession_numbers)
_MODALITIES_IN_STUDY = stored_name(StudyDocument.modalities_in_study)
_STUDY_UPDATED_AT = stored_name(StudyDocument.updated_at)

_LEASE = "worklist-arrivals"

_LOOK_SECONDS = 1.0
_OVERLAP = timedelta(seconds=30)
"""Studies are looked at for this much longer: clocks of processes differ, and writes take time."""
_BATCH = 200
"""Studies whose entries are looked up at once."""


class WorklistArrivals:
    """Completes entries.

    Args:
        database: Where entries and studies are.
        stable_seconds: A study is stable when nothing new came for so long, in seconds.
        on_changed: Awaited when entries were completed; None: nothing.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        *,
        stable_seconds: float,
        on_changed: Callable[[], Awaitable[None]] | None,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._entries = database[WorklistEntryDocument.Settings.name]
        self._studies = database[StudyDocument.Settings.name]
        self._copies = database[StudyCopyDocument.Settings.name]
        self._stable = timedelta(seconds=stable_seconds)
        self._on_changed = on_changed
        self._now = now
        self._checked_until: datetime | None = None
        self._lease = Lease(database, _LEASE)

    async def run(self) -> None:
        """Complete entries while this process holds the lease, until cancelled."""
        await self._lease.repeat("worklist arrivals", self._step, pause_seconds=_LOOK_SECONDS)

    async def _step(self) -> None:
        self._checked_until = await self.complete(self._checked_until)

    async def complete(self, since: datetime | None) -> datetime:
        """Complete the entries of studies that have become stable.

        Args:
            since: What an earlier call returned; None: look at all studies since the oldest open
                entry was opened.

        Returns:
            Until when studies have been looked at.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        until = self._now() - self._stable
        with translated_database_faults():
            if since is None:
                oldest = await self._entries.find_one(IS_OPEN, sort=[(_OPENED_AT, 1)])
                since = oldest[_OPENED_AT] if oldest else until
            elif await self._entries.find_one(IS_OPEN, {"_id": 1}) is None:
                return until
            found = self._studies.find(
                {_STUDY_UPDATED_AT: {"$gt": since - _OVERLAP, "$lte": until}},
                {
                    _PATIENT_ID: 1,
                    _ISSUER_OF_PATIENT_ID: 1,
                    _PATIENT_BIRTH_DATE: 1,
                    _STUDY_INSTANCE_UID: 1,
                    _ACCESSION_NUMBERS: 1,
                    _MODALITIES_IN_STUDY: 1,
                    _STUDY_UPDATED_AT: 1,
                    _LATEST_INDEXED_AT: 1,
                },
            )
            batch: list[Mapping[str, Any]] = []
            completed = 0
            async for study in found:
                batch.append(study)
                if len(batch) >= _BATCH:
                    completed += await self._complete_those_of(batch)
                    batch.clear()
            completed += await self._complete_those_of(batch)
        if completed and self._on_changed is not None:
            await self._on_changed()
        return until

    async def _complete_those_of(self, studies: Sequence[Mapping[str, Any]]) -> int:
        if not studies:
            return 0
        beat(HANGING_SECONDS)
        copies = self._copies.find({"_id": {"$in": [study["_id"] for study in studies]}})
        made_here = {one["_id"] async for one in copies}
        studies = [study for study in studies if study["_id"] not in made_here]
        uids = [study[_STUDY_INSTANCE_UID] for study in studies]
        accessions = {one for study in studies for one in study.get(_ACCESSION_NUMBERS, ())}
        planned = await self._entries.find(
            {
                **IS_OPEN,
                "$or": [
                    {_STUDY_INSTANCE_UID: {"$in": uids}},
                    {_ACCESSION_NUMBER: {"$in": sorted(accessions)}},
                ],
            }
        ).to_list()
        completed = 0
        for study in studies:
            for entry in completed_by(study, planned):
                completed += await self._complete_one(entry, study)
        return completed

    async def _complete_one(self, entry: Mapping[str, Any], study: Mapping[str, Any]) -> int:
        result = await self._entries.update_one(
            {"_id": entry["_id"], _VERSION: entry[_VERSION]},
            {
                "$set": {
                    _STATUS: WorklistStatus.COMPLETED.value,
                    _ORTHANC_STUDY_ID: study["_id"],
                    _VERSION: new_version(),
                    _UPDATED_AT: to_stored_precision(self._now()),
                }
            },
        )
        return int(result.modified_count)


def completed_by(
    study: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]
) -> list[Mapping[str, Any]]:
    """Return the open entries that a stable study completes.

    Args:
        study: As it is stored.
        entries: Open ones that have its StudyInstanceUID or one of its accession numbers, among
            others.
    """
    arrived_at = study.get(_LATEST_INDEXED_AT) or study[_STUDY_UPDATED_AT]
    of_patient = [
        entry
        for entry in entries
        if _may_be_of_patient(entry, study) and entry[_OPENED_AT] < arrived_at
    ]
    modalities = study.get(_MODALITIES_IN_STUDY, ())
    of_uid = [one for one in of_patient if one[_STUDY_INSTANCE_UID] == study[_STUDY_INSTANCE_UID]]
    if len(of_uid) > 1:
        # Several steps of one study: each with the images of its modality.
        of_uid = [one for one in of_uid if one[_MODALITY] in modalities]
    of_accession = [
        one
        for one in of_patient
        if one[_ACCESSION_NUMBER] in study.get(_ACCESSION_NUMBERS, ())
        and one[_MODALITY] in modalities
        and one not in of_uid
        and _is_of_patient(one, study)
    ]
    return of_uid + of_accession


def _may_be_of_patient(entry: Mapping[str, Any], study: Mapping[str, Any]) -> bool:
    """Return whether nothing says that an entry and a study are of two patients."""
    issuers = {entry.get(_ISSUER_OF_PATIENT_ID), study.get(_ISSUER_OF_PATIENT_ID)} - {None}
    return entry[_PATIENT_ID] == study[_PATIENT_ID] and len(issuers) <= 1


def _is_of_patient(entry: Mapping[str, Any], study: Mapping[str, Any]) -> bool:
    """Return whether they are of one patient, also when only one of them names an issuer."""
    if entry.get(_ISSUER_OF_PATIENT_ID) == study.get(_ISSUER_OF_PATIENT_ID):
        return True
    born = entry.get(_PATIENT_BIRTH_DATE)
    return born is not None and born == study.get(_PATIENT_BIRTH_DATE)
