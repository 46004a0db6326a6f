"""Read pages and counts from MongoDB."""

from collections.abc import Mapping
from typing import Any

from models import PatientDocument, StudyDocument
from models.stored import StoredDocument
from services.database import translated_database_faults
from services.query.filters import MongoFilter
from services.query.paging import Order, Page, PageRequest, make_page, plan_page

StoredFields = Mapping[str, Any]


class ListReader:
    """Reads the lists of one collection.

    Args:
        document: Its document class.
        page_max_size: Largest page, in entries.
        max_seconds: Longest time that MongoDB may work on one command.
    """

    def __init__(
        self, document: type[StoredDocument], *, page_max_size: int, max_seconds: float
    ) -> None:
        self._collection = document.get_pymongo_collection()
        self._page_max_size = page_max_size
        self._max_milliseconds = max(1, int(max_seconds * 1000))

    async def page(self, filter_: MongoFilter, order: Order, request: PageRequest) -> Page:
        """Read one page in one command.

        Raises:
            InvalidInput: The page makes no sense.
            DatabaseUnavailable: MongoDB does not answer in time.
        """
        plan = plan_page(request, order, max_size=self._page_max_size)
        beyond = [part for part in (filter_, plan.filter) if part]
        with translated_database_faults():
            documents = await self._collection.find(
                {"$and": beyond} if beyond else {},
                sort=list(plan.sort),
                limit=plan.limit,
                batch_size=plan.limit,
                max_time_ms=self._max_milliseconds,
            ).to_list()
        return make_page(plan, order, documents)

    async def count(self, filter_: MongoFilter) -> int:
        """Count what matches; without a filter from the collection's own count."""
        with translated_database_faults():
            if not filter_:
                return int(
                    await self._collection.estimated_document_count(
                        maxTimeMS=self._max_milliseconds
                    )
                )
            return int(
                await self._collection.count_documents(filter_, maxTimeMS=self._max_milliseconds)
            )


class Lists:
    """The lists of this server."""

    def __init__(self, *, page_max_size: int, max_seconds: float) -> None:
        self.studies = ListReader(
            StudyDocument, page_max_size=page_max_size, max_seconds=max_seconds
        )
        self.patients = ListReader(
            PatientDocument, page_max_size=page_max_size, max_seconds=max_seconds
        )
