"""What callers who are limited to labels see of a change."""

import pytest

from services.auth.scope import ALL, Scope
from services.sync.events import EventDebouncer, StudyChange, StudyChangeKind, seen_within

CREATED, UPDATED, STABLE, DELETED = StudyChangeKind
WARD = Scope(labels=frozenset({"ward"}))
DOCUMENT = {"_id": "study"}


def change(
    kind: StudyChangeKind, *labels: str, before: tuple[str, ...] | None = None
) -> StudyChange:
    document = None if kind is DELETED else DOCUMENT
    return StudyChange(kind, "study", "1.2.3", document, labels, before)


@pytest.mark.parametrize(
    ("happened", "seen"),
    [
        (change(CREATED, "ward"), CREATED),
        (change(CREATED), None),
        (change(UPDATED, "ward"), UPDATED),
        (change(UPDATED, "ward", before=("ward",)), UPDATED),
        (change(UPDATED, "x", "ward", before=("x",)), CREATED),
        (change(UPDATED, "x", before=("ward", "x")), DELETED),
        (change(UPDATED, "x", before=("y",)), None),
        (change(DELETED, "ward"), DELETED),
        (change(DELETED, "x"), None),
        (change(STABLE, "ward"), STABLE),
    ],
)
def test_a_label_that_comes_or_goes_is_a_study_that_does(
    happened: StudyChange, seen: StudyChangeKind | None
) -> None:
    found = seen_within(WARD, happened)
    assert (found and found.kind) is seen
    if found is not None:
        # What is checked again before it is sent.
        assert WARD.covers(found.study_id, found.labels)
        assert (found.document is None) is (seen is DELETED)
    assert seen_within(ALL, happened) == happened


def test_changes_in_a_burst_are_compared_with_what_was_before_all_of_them() -> None:
    pacing = EventDebouncer(stable_seconds=5)
    pacing.add(change(UPDATED, "ward"), at=0)
    pacing.due(at=0)
    pacing.add(change(UPDATED, before=("ward",)), at=0.1)
    pacing.add(change(UPDATED, "x", before=()), at=0.2)
    [due] = pacing.due(at=1)
    assert due.labels_before == ("ward",)
    # It is told once that the study is gone: its silence is none of the caller's business.
    [stable] = pacing.due(at=6)
    assert seen_within(WARD, stable) is None
