"""Studies, series and instances by their UIDs, inside a scope."""

import asyncio
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cachetools import TTLCache

from models import InstanceDocument, SeriesDocument, StudyDocument
from models.instance import INSTANCE_NUMBER_ORDER, instance_sort
from models.stored import StoredDocument
from models.thumbnail import Thumbnail
from services.auth.scope import Scope
from services.database import readable, translated_database_faults
from services.errors import AmbiguousStudy, NotFound
from services.query.visibility import studies_within

_UID_MAX_CHARACTERS = 1024
"""UIDs have 64 (PS3.5 9.1), and files that break the rule some more."""

_KEPT_SECONDS = 2.0
"""A viewer asks for all images of a series at once; what was deleted is gone after this time, and
Orthanc has nothing of it at once."""

_KEPT = 4096

_SINGLY = 3
"""Instances of one series that are looked up one by one; who asks for more will ask for all."""

_INSTANCES_MAX = 1_000
"""Of a series that is read whole: 20 ms."""

_SERIES_AT_ONCE = 64
_READ_AT_ONCE = 200
"""Documents in one answer of MongoDB: they are decoded at once."""

_NOT_READ = dict.fromkeys(
    ("studyAttributes", "seriesAttributes", "stackKey", "groupedStackKey", "timeKey", "numberKey"),
    0,
)
"""Half of a document, which no request for one instance needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyResource:
    """A study: Orthanc's identifiers, and the frame that stands for it."""

    id: str
    patient_id: str
    thumbnail: Thumbnail | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesResource:
    """A series of a study."""

    id: str
    study: StudyResource
    thumbnail: Thumbnail | None


@dataclass(slots=True)
class _Asked:
    """The instances of a series that somebody asks for.

    Attributes:
        count: How many were asked for.
        instances: All of them by SOPInstanceUID, as soon as they are read.
    """

    count: int = 0
    instances: Mapping[str, Mapping[str, Any]] | None = None
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class Resources:
    """Finds what a path names.

    What does not exist and what lies outside the scope is the same: `NotFound`.

    Args:
        max_seconds: Longest time that MongoDB may work on one command.
        clock: In seconds, rising.
    """

    def __init__(self, *, max_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_milliseconds = max(1, int(max_seconds * 1000))
        # By scope as well: what others asked for must not be refused faster than what is not there.
        self._studies: TTLCache[tuple[str, Scope], list[StudyResource]] = TTLCache(
            _KEPT, _KEPT_SECONDS, timer=clock
        )
        self._series: TTLCache[tuple[str, str], SeriesResource] = TTLCache(
            _KEPT, _KEPT_SECONDS, timer=clock
        )
        self._asked: TTLCache[str, _Asked] = TTLCache(_SERIES_AT_ONCE, _KEPT_SECONDS, timer=clock)

    def discard(self, _instance_ids: Iterable[str]) -> None:
        """Forget what is kept of instances: some were removed or replaced."""
        self._asked.clear()

    async def study(self, study_uid: str, scope: Scope) -> StudyResource:
        """Find a study.

        Raises:
            NotFound: There is no such study in the scope.
            AmbiguousStudy: Several patients have a study of this UID.
            DatabaseUnavailable: MongoDB does not answer.
        """
        found = self._studies.get((study_uid, scope))
        if found is None:
            within = {"studyInstanceUID": study_uid, **studies_within(scope)}
            found = [
                StudyResource(
                    id=document["_id"],
                    patient_id=document["orthancPatientId"],
                    thumbnail=_thumbnail(document),
                )
                for document in await self._find(StudyDocument, within)
            ]
            if found:
                self._studies[study_uid, scope] = found
        if not found:
            raise NotFound("There is no such study.")
        if len(found) > 1:
            raise AmbiguousStudy
        return found[0]

    async def series(self, study_uid: str, series_uid: str, scope: Scope) -> SeriesResource:
        """Find a series of a study; errors are those of `study`."""
        study = await self.study(study_uid, scope)
        key = (study.id, series_uid)
        series = self._series.get(key)
        if series is None:
            found = await self._find(
                SeriesDocument, {"orthancStudyId": study.id, "seriesInstanceUID": series_uid}
            )
            if not found:
                raise NotFound("There is no such series.")
            series = SeriesResource(id=found[0]["_id"], study=study, thumbnail=_thumbnail(found[0]))
            self._series[key] = series
        return series

    async def instance(
        self, study_uid: str, series_uid: str, instance_uid: str, scope: Scope
    ) -> InstanceDocument:
        """Find an instance of a series; errors are those of `study`."""
        series = await self.series(study_uid, series_uid, scope)
        known = await self._instances_asked(series.id)
        if instance_uid in known:
            return InstanceDocument.model_validate(known[instance_uid])
        filter_ = {"sopInstanceUID": instance_uid, "orthancSeriesId": series.id}
        found = await self._find(InstanceDocument, filter_, whole=True)
        if not found:
            raise NotFound("There is no such instance.")
        return InstanceDocument.model_validate(found[0])

    async def _instances_asked(self, series_id: str) -> Mapping[str, Mapping[str, Any]]:
        """Return all instances of a series that many are asked for of, else none."""
        asked = self._asked.get(series_id)
        if asked is None:
            asked = self._asked[series_id] = _Asked()
        asked.count += 1
        if asked.count <= _SINGLY:
            return {}
        async with asked.reading:
            if asked.instances is None:
                # As old as its reading, and not as the first request.
                self._asked[series_id] = asked
                asked.instances = await self._instances_of(series_id)
        return asked.instances

    async def _instances_of(self, series_id: str) -> dict[str, Mapping[str, Any]]:
        with translated_database_faults():
            found = await (
                readable(InstanceDocument.get_pymongo_collection())
                .find(
                    {"orthancSeriesId": series_id},
                    _NOT_READ,
                    max_time_ms=self._max_milliseconds,
                    batch_size=_READ_AT_ONCE,
                )
                .limit(_INSTANCES_MAX + 1)
                .to_list()
            )
        if len(found) > _INSTANCES_MAX:
            return {}
        return {document["sopInstanceUID"]: document for document in found}

    async def series_of(self, study: StudyResource) -> list[SeriesResource]:
        """Find all series of a study, by seriesNumber, then seriesInstanceUID."""
        found = await self._find(SeriesDocument, {"orthancStudyId": study.id}, many=True)
        return [
            SeriesResource(id=document["_id"], study=study, thumbnail=_thumbnail(document))
            for document in found
        ]

    async def instances_of(self, series: SeriesResource) -> list[Mapping[str, Any]]:
        """Read identifier, revision, UID and size of all instances of a series, in its order."""
        with translated_database_faults():
            return await (
                readable(InstanceDocument.get_pymongo_collection())
                .find(
                    {"orthancSeriesId": series.id},
                    ("revision", "sopInstanceUID", "transferSyntaxUID", "fileSizeBytes"),
                    max_time_ms=self._max_milliseconds,
                )
                .sort(instance_sort(INSTANCE_NUMBER_ORDER))
                .to_list()
            )

    async def _find(
        self,
        document: type[StoredDocument],
        filter_: Mapping[str, Any],
        *,
        whole: bool = False,
        many: bool = False,
    ) -> list[dict[str, Any]]:
        uids = [value for value in filter_.values() if isinstance(value, str)]
        if any(len(uid) > _UID_MAX_CHARACTERS for uid in uids):
            return []
        with translated_database_faults():
            cursor = readable(document.get_pymongo_collection()).find(
                filter_,
                None if whole else ("orthancPatientId", "thumbnail"),
                max_time_ms=self._max_milliseconds,
            )
            if many:
                return await cursor.sort([("seriesNumber", 1), ("seriesInstanceUID", 1)]).to_list()
            return await cursor.limit(_UID_HOLDERS).to_list()


_UID_HOLDERS = 100
"""Patients that have a study of one UID: two are wrong already."""


def _thumbnail(document: Mapping[str, Any]) -> Thumbnail | None:
    stored = document.get("thumbnail")
    return None if stored is None else Thumbnail.model_validate(stored)
