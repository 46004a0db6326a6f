import pytest

from services.auth.roles import Principal, Role
from services.auth.scope import ALL, NOTHING, Scope

SHARE = Scope(study_ids=frozenset({"a"}))
WARD = Scope(labels=frozenset({"ward"}))
BOTH = Scope(study_ids=frozenset({"a"}), labels=frozenset({"ward"}))


@pytest.mark.parametrize(
    ("scope", "study_id", "labels", "expected"),
    [
        (ALL, "b", [], True),
        (NOTHING, "a", ["ward"], False),
        (SHARE, "a", [], True),
        (SHARE, "b", ["ward"], False),
        (WARD, "b", ["x", "ward"], True),
        (WARD, "a", ["x"], False),
        (BOTH, "a", ["ward"], True),
        (BOTH, "a", [], False),
        (BOTH, "b", ["ward"], False),
    ],
)
def test_a_study_belongs_to_a_scope_or_not(
    scope: Scope, study_id: str, labels: list[str], expected: bool
) -> None:
    assert scope.covers(study_id, labels) is expected


def test_labels_of_others_are_not_shown() -> None:
    labels = ["x", "ward", "y"]
    assert ALL.visible_labels(labels) == labels
    assert WARD.visible_labels(labels) == ["ward"]
    assert SHARE.visible_labels(labels) == BOTH.visible_labels(labels) == []


@pytest.mark.parametrize("scope", [NOTHING, SHARE, WARD])
def test_an_administrator_is_never_limited(scope: Scope) -> None:
    with pytest.raises(ValueError, match="sees all"):
        Principal("root", Role.ADMIN, scope=scope)
