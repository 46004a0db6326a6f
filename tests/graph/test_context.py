from graph.context import AccessLog

PATIENT = {"_id": "p1"}
STUDY = {"_id": "s1", "orthancPatientId": "p1"}
SERIES = {"_id": "x", "orthancStudyId": "s2", "orthancPatientId": "p2"}


def test_documents_of_every_level_say_whom_they_are_about() -> None:
    accesses = AccessLog()
    accesses.see([PATIENT, STUDY, SERIES])
    assert (accesses.patient_ids, accesses.study_ids) == ({"p1", "p2"}, {"s1", "s2"})


def test_what_was_taken_is_not_there_any_more() -> None:
    accesses = AccessLog(fields=["study", "study"], number_of_objects=3)
    accesses.see([STUDY])
    accesses.minted["Frame.url"] += 2
    accesses.refusals.append(("study", "FORBIDDEN"))
    taken = accesses.take()
    assert (taken.fields, taken.study_ids, taken.number_of_objects) == (
        ["study", "study"],
        {"s1"},
        3,
    )
    assert (taken.minted, taken.refusals) == ({"Frame.url": 2}, [("study", "FORBIDDEN")])
    assert accesses == AccessLog(viewed={"p1", "s1"})


def test_a_view_is_new_once_for_each_study() -> None:
    accesses = AccessLog()
    accesses.see([STUDY])
    assert accesses.take().is_new_view
    accesses.see([STUDY])
    assert not accesses.take().is_new_view
    accesses.see([SERIES])
    assert accesses.take().is_new_view


def test_nobody_seen_is_no_view() -> None:
    assert not AccessLog(fields=["server"], number_of_objects=1).is_new_view
