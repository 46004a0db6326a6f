"""Labels of studies: given by people, kept in MongoDB, mirrored to Orthanc where it has labels.

MongoDB decides: its labels may have any characters, can be searched, and limit what principals see
(`services.auth.scope`). Orthanc (1.12.0 and newer) gets those that it takes, so that its own pages
show them; labels that are set in Orthanc are not read, because it reports no change of them.
"""

import logging
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import DELETIONS_KEPT_DAYS, FormerLabel, StudyDocument
from models.stored import stored_name
from services.auth.scope import Scope
from services.database import translated_database_faults
from services.errors import DatabaseUnavailable, InvalidInput, NotFound, OrthancError
from services.index.optimistic_locking import new_version
from services.index.record import to_stored_precision
from services.orthanc.client import OrthancClient
from services.query.visibility import studies_within

_CREATED_AT = stored_name(StudyDocument.created_at)
_UPDATED_AT = stored_name(StudyDocument.updated_at)

_FORMER_LABELS = stored_name(StudyDocument.former_labels)
_REMOVED_AT = stored_name(FormerLabel.removed_at)

_FORMER_KEPT = timedelta(days=DELETIONS_KEPT_DAYS, minutes=1)
_FORMER_MAX = 1000
"""Labels that were taken from one study: more within days are no work of people."""

_LABEL_MAX_CHARACTERS = 64
_LABELS_MAX = 100
"""Labels of one study: each is an entry of an index."""

_ORTHANC_LABEL = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
"""What Orthanc takes; it answers 400 to others."""

_log = logging.getLogger(__name__)

Fields = Mapping[str, Any]


class Labels:
    """Sets, removes and counts labels.

    Args:
        database: Where the studies are.
        orthanc: Gets the labels as well; None while PACS integration is off.
        max_seconds: Longest time that MongoDB may work on one command.
        of_rules: Labels that new studies may have got by rules (LABEL_RULES).
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        orthanc: OrthancClient | None,
        *,
        max_seconds: float,
        of_rules: Collection[str] = (),
    ) -> None:
        self._studies = database[StudyDocument.Settings.name]
        self._of_rules = sorted(of_rules)
        self._orthanc = orthanc
        self._max_milliseconds = max(1, int(max_seconds * 1000))

    async def add(self, study_id: str, labels: Sequence[str], scope: Scope) -> Fields:
        """Give a study labels; those that it has already change nothing.

        Args:
            study_id: Orthanc's identifier of a study that the caller sees.
            labels: 1 to 100 of 1 to 64 printable characters.
            scope: Of the caller, who may use no labels outside of it.

        Returns:
            The study as it is stored then.

        Raises:
            InvalidInput: A label is not allowed, or the study would have too many.
            NotFound: The study is gone.
            DatabaseUnavailable: MongoDB does not answer.
        """
        given = clean_labels(labels, scope)
        own = {"$ifNull": ["$labels", []]}
        news = {
            "$filter": {"input": {"$literal": given}, "cond": {"$not": {"$in": ["$$this", own]}}}
        }
        fits = {"$lte": [{"$size": {"$setUnion": [own, {"$literal": given}]}}, _LABELS_MAX]}
        changed = await self._update(
            {"_id": study_id, "labels": {"$not": {"$all": given}}, "$expr": fits},
            [{"$set": {"labels": {"$concatArrays": [own, news]}, **_stamps()}}],
        )
        study = await self._read(study_id)
        if not changed and not set(given) <= set(study.get("labels", ())):
            raise InvalidInput(f"A study has at most {_LABELS_MAX} labels.")
        await self._mirror("PUT", study_id, given)
        return study

    async def remove(self, study_id: str, labels: Sequence[str], scope: Scope) -> Fields:
        """Take labels from a study; arguments, result and errors are those of `add`."""
        given = clean_labels(labels, scope)
        left = {
            "$filter": {
                "input": "$labels",
                "cond": {"$not": {"$in": ["$$this", {"$literal": given}]}},
            }
        }
        await self._update(
            {"_id": study_id, "labels": {"$in": given}},
            [
                {"$set": {"labels": left, _FORMER_LABELS: _former(given), **_stamps()}},
                {"$set": {"labels": {"$cond": [{"$eq": ["$labels", []]}, "$$REMOVE", "$labels"]}}},
            ],
        )
        study = await self._read(study_id)
        await self._mirror("DELETE", study_id, given)
        return study

    async def adopt(
        self, study_ids: Iterable[str], scope: Scope, *, created_since: datetime
    ) -> None:
        """Give new studies the labels of the scope in which they were stored.

        Whoever is limited to labels would not see them otherwise. A study that was there before
        keeps its labels: storing a file into it must not make it visible.

        Args:
            study_ids: Orthanc's identifiers of the studies that files were stored in.
            scope: Of the caller.
            created_since: When storing began, with time zone.

        """
        if scope.labels is None or not scope.labels:
            return
        labels = sorted(scope.labels)
        try:
            for study_id in study_ids:
                # A rule may have been faster; labels of others mean that the study is theirs.
                own = {"$not": {"$elemMatch": {"$nin": self._of_rules}}}
                is_new = {"_id": study_id, "labels": own, _CREATED_AT: {"$gte": created_since}}
                given = {"$setUnion": [{"$ifNull": ["$labels", []]}, {"$literal": labels}]}
                if await self._update(is_new, [{"$set": {"labels": given, **_stamps()}}]):
                    await self._mirror("PUT", study_id, labels)
        except DatabaseUnavailable as exc:
            # The files are stored, and their sender must learn it.
            _log.warning("new studies have no labels: %s", exc.detail or exc.message)

    async def count(self, scope: Scope) -> list[tuple[str, int]]:
        """Count the studies of each label, the most frequent first.

        Args:
            scope: Of the caller; labels outside of it are left out.
        """
        with translated_database_faults():
            rows = await self._studies.aggregate(
                [
                    {"$match": {"$and": [{"labels": {"$gt": ""}}, studies_within(scope)]}},
                    {"$project": {"labels": 1}},
                    {"$unwind": "$labels"},
                    {"$group": {"_id": "$labels", "studies": {"$sum": 1}}},
                    {"$sort": {"studies": -1, "_id": 1}},
                ],
                maxTimeMS=self._max_milliseconds,
            )
            counts = {row["_id"]: int(row["studies"]) async for row in rows}
        return [(label, counts[label]) for label in scope.visible_labels(counts)]

    async def _update(self, filter_: Fields, changes: Sequence[Fields]) -> bool:
        with translated_database_faults():
            result = await self._studies.update_one(filter_, list(changes))
        return bool(result.modified_count)

    async def _read(self, study_id: str) -> Fields:
        with translated_database_faults():
            study = await self._studies.find_one({"_id": study_id})
        if study is None:
            raise NotFound("There is no such study.")
        return study

    async def _mirror(self, method: str, study_id: str, labels: Iterable[str]) -> None:
        """Tell Orthanc; that it is away does not matter: its labels decide nothing."""
        mirrored = [label for label in labels if _ORTHANC_LABEL.fullmatch(label)]
        if self._orthanc is None or not mirrored:
            return
        try:
            if (await self._orthanc.system()).has_labels:
                for label in mirrored:
                    await self._orthanc.change_label(method, study_id, label)
        except OrthancError as exc:
            _log.warning("labels of a study are not mirrored to Orthanc: %s", exc.code)


def _former(given: Sequence[str]) -> Fields:
    """Return the expression of the labels that were taken from a study, with these."""
    now = to_stored_precision(datetime.now(UTC))
    taken = {"$setIntersection": ["$labels", {"$literal": given}]}
    kept = {
        "$filter": {
            "input": {"$ifNull": [f"${_FORMER_LABELS}", []]},
            "cond": {
                "$and": [
                    {"$gte": [f"$$this.{_REMOVED_AT}", now - _FORMER_KEPT]},
                    {"$not": {"$in": ["$$this.label", taken]}},
                ]
            },
        }
    }
    news = {"$map": {"input": taken, "in": {"label": "$$this", _REMOVED_AT: now}}}
    return {"$slice": [{"$concatArrays": [kept, news]}, -_FORMER_MAX]}


def _stamps() -> dict[str, Any]:
    return {"version": new_version(), _UPDATED_AT: to_stored_precision(datetime.now(UTC))}


def clean_labels(labels: Sequence[str], scope: Scope) -> list[str]:
    """Check labels, and drop blanks around them and repetitions.

    Raises:
        InvalidInput: There are none or too many, one is empty, too long or not printable, or
            belongs to others.
    """
    given = list(dict.fromkeys(label.strip() for label in labels[: _LABELS_MAX + 1]))
    if not 0 < len(given) <= _LABELS_MAX:
        raise InvalidInput(f"labels: 1 to {_LABELS_MAX}.")
    if not all(0 < len(one) <= _LABEL_MAX_CHARACTERS and one.isprintable() for one in given):
        raise InvalidInput(f"labels: 1 to {_LABEL_MAX_CHARACTERS} printable characters each.")
    if not scope.is_all and scope.visible_labels(given) != given:
        raise InvalidInput("labels: your credential is limited to labels; use one of these.")
    return given
