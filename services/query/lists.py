"""Reads pages and counts of studies and patients from MongoDB, within the scope of the caller."""

from collections.abc import Mapping
from typing import Any

from models import PatientDocument, StudyDocument
from models.stored import StoredDocument, stored_name
from services.database import CollectionCount, readable, translated_database_faults
from services.index.aggregations import Pipeline
from services.query.filters import PatientCriteria, StudyCriteria, patient_filter, study_filter
from services.query.paging import ListCount, Order, Page, PageRequest, make_page, plan_page
from services.query.tree import Trees
from services.query.visibility import MongoFilter, both, studies_within

_LATEST_INDEXED_AT = stored_name(StudyDocument.latest_indexed_at)
_MODALITIES_IN_STUDY = stored_name(StudyDocument.modalities_in_study)
_NAME_WORDS = stored_name(StudyDocument.name_words)
_ORDER_PATIENT_NAME = stored_name(StudyDocument.order_patient_name)
_ORTHANC_PATIENT_ID = stored_name(StudyDocument.orthanc_patient_id)
_PATIENT_ID = stored_name(StudyDocument.patient_id)


StoredFields = Mapping[str, Any]

COUNTED_AT_MOST = 100_000
"""Most matches that are counted, which takes 0.1 to 0.2 s in a store of any size."""


class _Collection:
    """Reads pages and counts of one collection.

    Args:
        document: Its document class.
        max_milliseconds: Longest time that MongoDB may work on one command.
    """

    def __init__(self, document: type[StoredDocument], *, max_milliseconds: int) -> None:
        self._collection = readable(document.get_pymongo_collection())
        self._max_milliseconds = max_milliseconds
        self._count = CollectionCount(document.get_pymongo_collection())

    async def find(
        self, filter_: MongoFilter, sort: list[tuple[str, int]], limit: int
    ) -> list[StoredFields]:
        """Read documents in one command."""
        with translated_database_faults():
            found: list[StoredFields] = await self._collection.find(
                filter_,
                sort=sort,
                limit=limit,
                batch_size=limit,
                max_time_ms=self._max_milliseconds,
            ).to_list()
        return found

    async def aggregate(self, pipeline: Pipeline) -> list[StoredFields]:
        """Run an aggregation."""
        with translated_database_faults():
            rows = await self._collection.aggregate(pipeline, maxTimeMS=self._max_milliseconds)
            return [row async for row in rows]

    async def count(self, filter_: MongoFilter) -> ListCount:
        """Count matches up to `COUNTED_AT_MOST`; without a filter, the whole collection."""
        if not filter_:
            return ListCount(await self._count.read(max_milliseconds=self._max_milliseconds))
        with translated_database_faults():
            number = await self._collection.count_documents(
                filter_, limit=COUNTED_AT_MOST, maxTimeMS=self._max_milliseconds
            )
        return ListCount(number, is_exact=number < COUNTED_AT_MOST)


class StudyList:
    """The list of studies.

    Args:
        page_max_size: Largest page, in entries.
        max_milliseconds: Longest time that MongoDB may work on one command.
    """

    def __init__(self, *, page_max_size: int, max_milliseconds: int) -> None:
        self._studies = _Collection(StudyDocument, max_milliseconds=max_milliseconds)
        self._page_max_size = page_max_size

    async def page(self, criteria: StudyCriteria, order: Order, request: PageRequest) -> Page:
        """Read one page in one command.

        Raises:
            InvalidInput: The page or the criteria make no sense.
            DatabaseUnavailable: MongoDB does not answer in time.
        """
        matching = study_filter(criteria)
        plan = plan_page(request, order, max_size=self._page_max_size)
        documents = await self._studies.find(
            both(matching, plan.filter), list(plan.sort), plan.limit
        )
        return make_page(plan, order, documents)

    async def count(self, criteria: StudyCriteria) -> ListCount:
        """Count what matches."""
        return await self._studies.count(study_filter(criteria))

    async def modality_counts(self, criteria: StudyCriteria) -> list[tuple[str, int]]:
        """Count the studies with each modality, the most frequent first."""
        matching = study_filter(criteria)
        rows = await self._studies.aggregate(
            [
                *([{"$match": matching}] if matching else []),
                {"$project": {_MODALITIES_IN_STUDY: 1}},
                {"$unwind": f"${_MODALITIES_IN_STUDY}"},
                {"$group": {"_id": f"${_MODALITIES_IN_STUDY}", "studies": {"$sum": 1}}},
                {"$sort": {"studies": -1, "_id": 1}},
            ]
        )
        return [(row["_id"], row["studies"]) for row in rows]


class PatientList:
    """The list of patients, by name.

    Within a limited scope a patient has only the data of the studies in the scope: name, number of
    studies and conflicts of other studies must not be visible.

    Args:
        trees: Read patients within a scope.
        page_max_size: Largest page, in entries.
        max_milliseconds: Longest time that MongoDB may work on one command.
    """

    ORDER = Order(_ORDER_PATIENT_NAME, ascending=True)

    def __init__(self, trees: Trees, *, page_max_size: int, max_milliseconds: int) -> None:
        self._trees = trees
        self._patients = _Collection(PatientDocument, max_milliseconds=max_milliseconds)
        self._studies = _Collection(StudyDocument, max_milliseconds=max_milliseconds)
        self._page_max_size = page_max_size

    async def page(self, criteria: PatientCriteria, request: PageRequest) -> Page:
        """Read one page, in one command or, within a limited scope, in two.

        Raises:
            InvalidInput: The page or the criteria make no sense.
            DatabaseUnavailable: MongoDB does not answer in time.
        """
        matching = patient_filter(criteria)
        plan = plan_page(request, self.ORDER, max_size=self._page_max_size)
        if criteria.scope.is_all:
            documents = await self._patients.find(
                both(matching, plan.filter), list(plan.sort), plan.limit
            )
            return make_page(plan, self.ORDER, documents)
        rows = await self._studies.aggregate(
            [
                *_patients_within(criteria),
                {"$match": dict(plan.filter)},
                {"$sort": dict(plan.sort)},
                {"$limit": plan.limit},
            ]
        )
        tree = self._trees.within(criteria.scope)
        found = await tree.patients([row["_id"] for row in rows])
        return make_page(plan, self.ORDER, [patient for patient in found if patient is not None])

    async def count(self, criteria: PatientCriteria) -> ListCount:
        """Count what matches."""
        if criteria.scope.is_all:
            return await self._patients.count(patient_filter(criteria))
        rows = await self._studies.aggregate([*_patients_within(criteria), {"$count": "patients"}])
        return ListCount(int(rows[0]["patients"]) if rows else 0)


def _patients_within(criteria: PatientCriteria) -> Pipeline:
    """Return the aggregation over studies with one row for each patient that matches."""
    return [
        {"$match": studies_within(criteria.scope)},
        {
            "$group": {
                "_id": f"${_ORTHANC_PATIENT_ID}",
                _PATIENT_ID: {"$first": f"${_PATIENT_ID}"},
                # As `patient_content`: the name of the study that was indexed last.
                "latest": {
                    "$max": {
                        _LATEST_INDEXED_AT: f"${_LATEST_INDEXED_AT}",
                        "_id": "$_id",
                        _ORDER_PATIENT_NAME: f"${_ORDER_PATIENT_NAME}",
                    }
                },
                "words": {"$push": f"${_NAME_WORDS}"},
            }
        },
        {
            "$project": {
                _PATIENT_ID: 1,
                _ORDER_PATIENT_NAME: f"$latest.{_ORDER_PATIENT_NAME}",
                _NAME_WORDS: {
                    "$reduce": {
                        "input": "$words",
                        "initialValue": [],
                        "in": {"$concatArrays": ["$$value", "$$this"]},
                    }
                },
            }
        },
        {"$match": patient_filter(criteria)},
    ]


class Lists:
    """The lists of this server.

    Args:
        trees: Read patients within a scope.
        page_max_size: Largest page, in entries.
        max_seconds: Longest time that MongoDB may work on one command.
    """

    def __init__(self, trees: Trees, *, page_max_size: int, max_seconds: float) -> None:
        milliseconds = max(1, int(max_seconds * 1000))
        self.studies = StudyList(page_max_size=page_max_size, max_milliseconds=milliseconds)
        self.patients = PatientList(
            trees, page_max_size=page_max_size, max_milliseconds=milliseconds
        )
