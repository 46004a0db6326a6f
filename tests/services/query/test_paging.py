import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from services.errors import InvalidInput
from services.query.paging import (
    Order,
    PageRequest,
    encode_cursor,
    make_page,
    plan_page,
)

NEWEST = Order("orderStudyDate", ascending=False)
OLDEST = Order("orderStudyDate", ascending=True)
UPDATED = Order("updatedAt", ascending=True)


def study(number: int, date: str = "2020-01-01T") -> dict[str, Any]:
    moment = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(milliseconds=number)
    return {"_id": f"id{number}", "orderStudyDate": date, "updatedAt": moment}


def test_a_first_page_asks_for_one_more_than_it_holds() -> None:
    plan = plan_page(PageRequest(first=2), NEWEST, max_size=500)
    assert (plan.filter, list(plan.sort), plan.limit) == (
        {},
        [("orderStudyDate", -1), ("_id", -1)],
        3,
    )
    page = make_page(plan, NEWEST, [study(3), study(2), study(1)])
    assert [document["_id"] for document in page.documents] == ["id3", "id2"]
    assert (page.has_next_page, page.has_previous_page) == (True, False)


def test_a_page_after_a_cursor_goes_on_behind_it_even_among_equals() -> None:
    cursor = encode_cursor(study(2), NEWEST)
    plan = plan_page(PageRequest(first=2, after=cursor), NEWEST, max_size=500)
    assert plan.filter == {
        "$or": [
            {"orderStudyDate": {"$lt": "2020-01-01T"}},
            {"orderStudyDate": "2020-01-01T", "_id": {"$lt": "id2"}},
        ]
    }
    page = make_page(plan, NEWEST, [study(1)])
    assert (page.has_next_page, page.has_previous_page) == (False, True)


def test_a_page_before_a_cursor_is_read_backwards_and_answered_forwards() -> None:
    cursor = encode_cursor(study(1), NEWEST)
    plan = plan_page(PageRequest(first=20, last=2, before=cursor), NEWEST, max_size=500)
    assert list(plan.sort) == [("orderStudyDate", 1), ("_id", 1)]
    page = make_page(plan, NEWEST, [study(2), study(3), study(4)])
    assert [document["_id"] for document in page.documents] == ["id3", "id2"]
    assert (page.has_next_page, page.has_previous_page) == (True, True)


def test_a_cursor_of_a_moment_is_read_back_to_the_millisecond() -> None:
    plan = plan_page(
        PageRequest(first=1, after=encode_cursor(study(5), UPDATED)), UPDATED, max_size=500
    )
    assert plan.filter["$or"][1] == {"updatedAt": study(5)["updatedAt"], "_id": {"$gt": "id5"}}


@pytest.mark.parametrize(
    "request_",
    [
        PageRequest(first=501),
        PageRequest(first=-1),
        PageRequest(last=-1),
        PageRequest(),
        PageRequest(first=1, after="%"),
        PageRequest(first=1, after="bm90IGpzb24"),
        PageRequest(first=1, after="é"),
        PageRequest(first=1, after=encode_cursor(study(1), UPDATED)),
        PageRequest(
            first=1, after=encode_cursor(study(1), Order("orderStudyDate", ascending=True))
        ),
        PageRequest(first=1, before=encode_cursor(study(1), NEWEST)),
        PageRequest(last=1, after=encode_cursor(study(1), NEWEST)),
    ],
)
def test_a_page_that_makes_no_sense_is_refused(request_: PageRequest) -> None:
    with pytest.raises(InvalidInput):
        plan_page(request_, NEWEST, max_size=500)


@pytest.mark.parametrize("value", [{"$gt": ""}, 1, None, ["x"]])
def test_a_cursor_can_not_bring_an_operator_of_mongodb(value: object) -> None:
    cursor = encode_cursor({"_id": "id1", "orderStudyDate": value}, NEWEST)
    with pytest.raises(InvalidInput):
        plan_page(PageRequest(first=1, after=cursor), NEWEST, max_size=500)


def test_a_cursor_that_is_nested_endlessly_is_refused() -> None:
    cursor = base64.urlsafe_b64encode(b"[" * 5_000).decode()
    with pytest.raises(InvalidInput, match="not a cursor of this list"):
        plan_page(PageRequest(first=1, after=cursor), NEWEST, max_size=500)
