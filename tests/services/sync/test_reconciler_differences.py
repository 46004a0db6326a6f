"""The decisions of synchronizing, without a server."""

from datetime import UTC, datetime

import pytest

from services.index.record import INDEX_VERSION
from services.orthanc.answers import Change, ChangePage, StoredFile
from services.sync.follower import FeedPosition
from services.sync.reconciler import IndexedInstance, batches, find_differences
from services.sync.status import seconds_behind


def _file(instance_id: str, uuid: str) -> StoredFile:
    return StoredFile(instance_id, "series", uuid, 1, {})


def test_differences_are_what_is_missing_replaced_or_gone() -> None:
    indexed = {
        "same": IndexedInstance("aaaaaaaa", "study"),
        "replaced": IndexedInstance("bbbbbbbb", "study"),
        "gone": IndexedInstance("cccccccc", "study"),
    }
    held = [_file("same", "AAAAAAAA-1"), _file("replaced", "dddddddd-1"), _file("new", "e" * 8)]
    found = find_differences(["same", "replaced", "gone", "new", "never"], held, indexed)
    assert [file.instance_id for file in found.missing] == ["replaced", "new"]
    assert found.gone == ["gone"]
    assert found.unchanged_studies == {"study"}


def test_what_an_earlier_release_indexed_is_missing_until_it_is_read_again() -> None:
    indexed = {"old": IndexedInstance("aaaaaaaa", "study", index_version=INDEX_VERSION - 1)}
    held = [_file("old", "aaaaaaaa-1")]
    assert find_differences(["old"], held, indexed).missing == held


def test_agreement_is_no_difference() -> None:
    indexed = {"same": IndexedInstance("aaaaaaaa", "study")}
    assert not find_differences(["same", "never"], [_file("same", "aaaaaaaa-1")], indexed)


def test_batches_cut_without_loss() -> None:
    assert list(batches("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(batches("", 2)) == []


def test_a_position_knows_another_change_of_its_number() -> None:
    change = Change(7, "NewInstance", "a", "20240101T000000")
    position = FeedPosition.after(ChangePage((change,), last=7, is_last_page=True))
    assert position == FeedPosition(7, "20240101T000000", "a")
    assert not position.is_contradicted_by(change)
    assert position.is_contradicted_by(Change(7, "NewInstance", "b", "20240101T000000"))
    assert not FeedPosition(7).is_contradicted_by(change)


@pytest.mark.parametrize(
    ("date", "seconds"), [("20240101T000000", 90.0), ("20240101T000500", 0.0), ("?", 0.0)]
)
def test_being_behind_is_the_age_of_the_oldest_change(date: str, seconds: float) -> None:
    page = ChangePage((Change(1, "NewInstance", "a", date),), last=1, is_last_page=True)
    now = datetime(2024, 1, 1, 0, 1, 30, tzinfo=UTC)
    assert seconds_behind(page, now) == seconds
    assert seconds_behind(ChangePage((), 1, is_last_page=True), now) == 0
