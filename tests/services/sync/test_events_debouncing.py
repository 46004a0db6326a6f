"""Bursts become one event a second, silence becomes STABLE."""

from services.sync.events import EventDebouncer, StudyChange, StudyChangeKind

CREATED, UPDATED, STABLE, DELETED = (
    StudyChangeKind.CREATED,
    StudyChangeKind.UPDATED,
    StudyChangeKind.STABLE,
    StudyChangeKind.DELETED,
)


def _change(kind: StudyChangeKind, images: int = 0) -> StudyChange:
    document = None if kind is DELETED else {"numberOfInstances": images}
    return StudyChange(kind, "study", "1.2.3", document)


def test_a_first_change_is_told_at_once() -> None:
    pacing = EventDebouncer(stable_seconds=30)
    pacing.add(_change(CREATED, 1), at=0)
    assert pacing.due(at=0) == [_change(CREATED, 1)]
    assert pacing.due(at=0.1) == []


def test_a_burst_becomes_one_event_a_second_with_the_newest_study() -> None:
    pacing = EventDebouncer(stable_seconds=30)
    pacing.add(_change(CREATED, 1), at=0)
    pacing.due(at=0)
    for images in range(2, 50):
        pacing.add(_change(UPDATED, images), at=images / 100)
        assert pacing.due(at=images / 100) == []
    assert pacing.due(at=1.0) == [_change(UPDATED, 49)]


def test_silence_is_told_once() -> None:
    pacing = EventDebouncer(stable_seconds=5)
    pacing.add(_change(UPDATED, 1), at=0)
    pacing.due(at=0)
    assert pacing.due(at=4.9) == []
    assert pacing.due(at=5) == [_change(STABLE, 1)]
    assert pacing.due(at=50) == []


def test_a_study_that_was_created_and_changed_before_it_was_told_is_created() -> None:
    pacing = EventDebouncer(stable_seconds=5)
    pacing.add(_change(CREATED, 1), at=0)
    pacing.add(_change(UPDATED, 2), at=0.1)
    assert pacing.due(at=0.2) == [_change(CREATED, 2)]


def test_a_deleted_study_is_told_and_never_stable() -> None:
    pacing = EventDebouncer(stable_seconds=5)
    pacing.add(_change(UPDATED, 1), at=0)
    pacing.add(_change(DELETED), at=0.1)
    assert pacing.due(at=0.2) == [_change(DELETED)]
    assert pacing.due(at=50) == []


def test_a_study_deleted_and_sent_again_within_a_second_is_updated() -> None:
    pacing = EventDebouncer(stable_seconds=5)
    pacing.add(_change(DELETED), at=0)
    pacing.add(_change(CREATED, 3), at=0.1)
    assert pacing.due(at=0.2) == [_change(UPDATED, 3)]


def test_a_change_without_a_study_is_nothing() -> None:
    pacing = EventDebouncer(stable_seconds=5)
    pacing.add(None, at=0)
    assert pacing.due(at=100) == []
