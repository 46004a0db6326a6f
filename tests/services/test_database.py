"""The clock of this machine beside that of MongoDB."""

from datetime import UTC, datetime, timedelta

import pytest

from services.database import describe_clock_difference

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize("seconds", [-10, -1, 0, 1, 10])
def test_clocks_that_are_near_enough_are_not_mentioned(seconds: int) -> None:
    assert describe_clock_difference(NOW + timedelta(seconds=seconds), NOW) is None


@pytest.mark.parametrize(("hours", "words"), [(1, "3600 s behind"), (-1, "3600 s ahead of")])
def test_clocks_an_hour_apart_are_told_with_what_to_do(hours: int, words: str) -> None:
    # PyMongo gives times without a zone unless it is told otherwise.
    for time in (NOW + timedelta(hours=hours), (NOW + timedelta(hours=hours)).replace(tzinfo=None)):
        told = describe_clock_difference(time, NOW)
        assert told is not None
        assert words in told
        assert "NTP" in told
