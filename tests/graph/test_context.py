import pytest

from graph.context import AccessLog, Level

PATIENT = {"_id": "p1"}
STUDY = {"_id": "s1", "orthancPatientId": "p1"}
SERIES = {"_id": "x", "orthancStudyId": "s2", "orthancPatientId": "p2"}


def test_documents_of_every_level_say_whom_they_are_about() -> None:
    accesses = AccessLog()
    accesses.add([PATIENT], "Patient")
    assert (accesses.patient_ids, accesses.study_ids) == ({"p1"}, set())
    accesses.add([STUDY], "Study")
    accesses.add([SERIES], "Series")
    assert (accesses.patient_ids, accesses.study_ids) == ({"p1", "p2"}, {"s1", "s2"})


@pytest.mark.parametrize(
    ("document", "level"),
    [
        ({"_id": "s1"}, "Study"),
        ({"_id": "x", "orthancStudyId": "s2"}, "Series"),
        ({"_id": "x", "orthancPatientId": "p2"}, "Series"),
        ({"_id": "x", "orthancPatientId": "p2"}, "Instance"),
    ],
)
def test_a_document_that_says_not_whose_it_is_passes_for_nobody(
    document: dict[str, str], level: Level
) -> None:
    accesses = AccessLog()
    with pytest.raises(KeyError):
        accesses.add([document], level)
    assert document["_id"] not in accesses.patient_ids | accesses.study_ids


def test_what_was_drained_is_not_there_any_more() -> None:
    accesses = AccessLog(fields=["study", "study"], searches=["study"], number_of_objects=3)
    accesses.add([STUDY], "Study")
    accesses.minted["Frame.url"] += 2
    accesses.refusals.append(("study", "FORBIDDEN"))
    drained = accesses.drain()
    assert (drained.fields, drained.study_ids, drained.number_of_objects) == (
        ["study", "study"],
        {"s1"},
        3,
    )
    assert (drained.minted, drained.refusals) == ({"Frame.url": 2}, [("study", "FORBIDDEN")])
    assert drained.searches == ["study"]
    assert accesses == AccessLog(viewed={"p1", "s1"})


def test_a_view_is_new_once_for_each_study() -> None:
    accesses = AccessLog()
    accesses.add([STUDY], "Study")
    assert accesses.drain().is_new_view
    accesses.add([STUDY], "Study")
    assert not accesses.drain().is_new_view
    accesses.add([SERIES], "Series")
    assert accesses.drain().is_new_view


def test_nobody_seen_is_no_view() -> None:
    assert not AccessLog(fields=["server"], number_of_objects=1).is_new_view
