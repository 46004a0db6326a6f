"""Pages of Orthanc's lists are walked to their end, whatever is deleted meanwhile."""

from typing import TYPE_CHECKING, cast
from unittest.mock import AsyncMock, MagicMock

import pytest

from services.orthanc.answers import SeriesListing
from services.sync.comparison import PAGE_SERIES, Comparison, Repairs

if TYPE_CHECKING:
    from services.orthanc.client import OrthancClient


class RepeatingOrthanc:
    """Lists the same series at two positions, as after arrivals and deletions between two pages."""

    def __init__(self, pages: int) -> None:
        self.asked: list[int] = []
        self._pages = pages

    async def series(self, since: int, limit: int) -> list[SeriesListing]:
        self.asked.append(since)
        assert len(self.asked) < 10, "it asks without end"
        if since >= self._pages * limit:
            return []
        return [SeriesListing(f"series {number}", "study", ()) for number in range(limit)]


@pytest.mark.parametrize("pages", [0, 1, 3])
async def test_pages_that_repeat_series_end(pages: int, monkeypatch: pytest.MonkeyPatch) -> None:
    orthanc = RepeatingOrthanc(pages)
    comparison = Comparison(cast("OrthancClient", orthanc), MagicMock(), MagicMock(), MagicMock())
    compare_series = AsyncMock()
    monkeypatch.setattr(comparison, "_compare_series", compare_series)
    await comparison._compare_instances(cast("Repairs", None))
    assert orthanc.asked == [page * PAGE_SERIES for page in range(pages + 1)]
    assert compare_series.await_count == pages
