"""Where studies came from, so that a rule sends nothing back.

Orthanc notes who has sent an instance by C-STORE. What this server has fetched by C-GET looks like
an upload there, and what came by C-MOVE may carry the name of another application of the archive:
so the jobs that fetch note here what they ask for.
"""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import InstanceDocument, RetrievedStudyDocument, StudyDocument
from models.stored import stored_name
from services.database import translated_database_faults
from services.orthanc.client import OrthancClient

_AE_TITLE = stored_name(RetrievedStudyDocument.ae_title)
_EXPIRES_AT = stored_name(RetrievedStudyDocument.expires_at)
_ORTHANC_SERIES_ID = stored_name(InstanceDocument.orthanc_series_id)
_ORTHANC_STUDY_ID = stored_name(InstanceDocument.orthanc_study_id)
_SOP_INSTANCE_UID = stored_name(InstanceDocument.sop_instance_uid)
_STUDY_INSTANCE_UID = stored_name(StudyDocument.study_instance_uid)

_REMEMBERED = timedelta(days=3650)
_MARK_BYTES = 6
"""Of a SOPInstanceUID: enough to tell those of a study apart."""
_LOOKED_UP = 200
"""Instances that Orthanc is asked about in one call."""

_REMOTE_AET = "RemoteAET"
"""Orthanc's metadata of who has sent an instance by C-STORE."""


class StudySources:
    """What is known of who had a study before.

    Args:
        database: Where the index is, and what was fetched.
        orthanc: Knows who has sent an instance; None while PACS integration is off.
    """

    def __init__(
        self, database: AsyncDatabase[dict[str, Any]], orthanc: OrthancClient | None
    ) -> None:
        self._retrieved = database[RetrievedStudyDocument.Settings.name]
        self._studies = database[StudyDocument.Settings.name]
        self._instances = database[InstanceDocument.Settings.name]
        self._orthanc = orthanc

    async def record_retrieval(
        self, job_id: str, ae_title: str, study_instance_uid: str, sop_instance_uids: Iterable[str]
    ) -> None:
        """Note what is fetched, before anything of it comes.

        Args:
            job_id: Of the job that fetches.
            ae_title: Of the modality that has it.
            study_instance_uid: Of the study.
            sop_instance_uids: What is fetched.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        key = {"_id": f"{job_id}/{study_instance_uid}"}
        with translated_database_faults():
            before = await self._retrieved.find_one(key) or {}
            marks = _split(before.get("instances", b"")) | set(map(_mark, sop_instance_uids))
            document = {
                _AE_TITLE: ae_title,
                _STUDY_INSTANCE_UID: study_instance_uid,
                "instances": b"".join(sorted(marks)),
                _EXPIRES_AT: datetime.now(UTC) + _REMEMBERED,
            }
            await self._retrieved.update_one(key, {"$set": document}, upsert=True)

    async def senders(self, study_id: str) -> set[str]:
        """Return the AE titles that the series of a study came from, as Orthanc noted them.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
            OrthancError: Orthanc does not answer.
        """
        with translated_database_faults():
            cursor = await self._instances.aggregate(
                [
                    {"$match": {_ORTHANC_STUDY_ID: study_id}},
                    {"$group": {"_id": f"${_ORTHANC_SERIES_ID}", "first": {"$first": "$_id"}}},
                ]
            )
            ids = [one["first"] async for one in cursor]
        return set((await self._senders_of(ids)).values())

    async def has_all_from(self, ae_title: str, study_id: str, senders: Collection[str]) -> bool:
        """Return whether everything of a study came from one application.

        Args:
            ae_title: Of the application.
            study_id: Orthanc's identifier of the study.
            senders: As `senders` returns them.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
            OrthancError: Orthanc does not answer.
        """
        if ae_title not in senders and not await self._marks(ae_title, study_id):
            return False
        instances = await self._read(study_id)
        return instances.keys() <= await self.from_application(ae_title, study_id)

    async def from_application(self, ae_title: str, study_id: str) -> set[str]:
        """Return Orthanc's identifiers of the instances of a study that an application had before.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
            OrthancError: Orthanc does not answer.
        """
        instances = await self._read(study_id)
        marks = await self._marks(ae_title, study_id)
        fetched = {one for one, uid in instances.items() if _mark(uid) in marks}
        senders = await self._senders_of([one for one in instances if one not in fetched])
        return fetched | {one for one, sender in senders.items() if sender == ae_title}

    async def _read(self, study_id: str) -> Mapping[str, str]:
        """Return the SOPInstanceUIDs of a study by Orthanc's identifiers."""
        with translated_database_faults():
            found = self._instances.find({_ORTHANC_STUDY_ID: study_id}, {_SOP_INSTANCE_UID: 1})
            return {one["_id"]: one[_SOP_INSTANCE_UID] async for one in found}

    async def _marks(self, ae_title: str, study_id: str) -> set[bytes]:
        """Return the marks of what was fetched of a study, whatever its patient was called then."""
        with translated_database_faults():
            study = await self._studies.find_one({"_id": study_id}, {_STUDY_INSTANCE_UID: 1})
            if study is None:
                return set()
            uid = study[_STUDY_INSTANCE_UID]
            found = self._retrieved.find({_STUDY_INSTANCE_UID: uid, _AE_TITLE: ae_title})
            return {mark async for one in found for mark in _split(one["instances"])}

    async def _senders_of(self, instance_ids: Sequence[str]) -> dict[str, str]:
        """Return who has sent instances by C-STORE; those that came otherwise are left out."""
        senders: dict[str, str] = {}
        if self._orthanc is None:
            return senders
        for begin in range(0, len(instance_ids), _LOOKED_UP):
            part = instance_ids[begin : begin + _LOOKED_UP]
            for one in await self._orthanc.stored_files(part):
                if sender := one.metadata.get(_REMOTE_AET):
                    senders[one.instance_id] = sender
        return senders


def _split(stored: bytes) -> set[bytes]:
    return {stored[at : at + _MARK_BYTES] for at in range(0, len(stored), _MARK_BYTES)}


def _mark(sop_instance_uid: str) -> bytes:
    return hashlib.sha256(sop_instance_uid.encode()).digest()[:_MARK_BYTES]
