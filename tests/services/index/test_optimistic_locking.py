from services.index.optimistic_locking import Delete, Insert, Update, plan_write

STORED = {"_id": "a", "version": "v1", "count": 1, "name": "x"}


def test_absent_document_is_inserted_with_all_that_belongs_to_a_new_one() -> None:
    write = plan_write(
        "a",
        current=None,
        content={"count": 1},
        on_insert={"createdAt": 5},
        on_change={"updatedAt": 6},
        must_touch=True,
    )
    assert write == Insert("a", {"count": 1, "createdAt": 5, "updatedAt": 6})


def test_absent_document_without_attributes_is_left_absent() -> None:
    assert plan_write("a", current=None, content={"count": 1}, must_touch=True) is None


def test_only_what_changed_is_written_with_the_time_of_the_change() -> None:
    write = plan_write(
        "a",
        current=STORED,
        content={"count": 2, "name": "x"},
        on_change={"updatedAt": 6},
        must_touch=False,
    )
    assert write == Update("a", "v1", {"count": 2, "updatedAt": 6})


def test_a_field_that_is_missing_is_told_from_one_that_is_none() -> None:
    write = plan_write("a", current=STORED, content={"sex": None}, must_touch=False)
    assert write == Update("a", "v1", {"sex": None})


def test_unchanged_content_is_touched_only_when_children_were_written() -> None:
    content = {"count": 1}
    changed = {"updatedAt": 6}
    touched = plan_write("a", current=STORED, content=content, on_change=changed, must_touch=True)
    left = plan_write("a", current=STORED, content=content, on_change=changed, must_touch=False)
    assert touched == Update("a", "v1", {})
    assert left is None


def test_document_without_children_is_deleted_under_its_version() -> None:
    assert plan_write("a", current=STORED, content=None, must_touch=True) == Delete("a", "v1")


def test_absent_document_without_children_needs_nothing() -> None:
    assert plan_write("a", current=None, content=None, must_touch=True) is None
