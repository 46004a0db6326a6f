from typing import Any

import pytest

from services.auth.oidc import principal_of_claims
from services.auth.roles import Principal, Role
from services.auth.scope import ALL, Scope

ROLES = {"viewer": Role.VIEWER, "radiologist": Role.UPLOADER, "it": Role.ADMIN}


def principal(claims: dict[str, Any], role_claim: str) -> Principal | None:
    return principal_of_claims({"sub": "s", **claims}, role_claim=role_claim, roles=ROLES)


@pytest.mark.parametrize(
    ("claims", "role_claim"),
    [
        ({"role": "radiologist"}, "role"),
        ({"role": ["viewer", "radiologist"]}, "role"),
        ({"scope": "openid viewer radiologist"}, "scope"),
        ({"realm_access": {"roles": ["radiologist"]}}, "realm_access.roles"),
        ({"https://example.org/roles": ["radiologist"]}, "https://example.org/roles"),
        ({"a.b": "radiologist", "a": {"b": "it"}}, "a.b"),
    ],
)
def test_the_highest_role_of_the_claim_counts(claims: dict[str, Any], role_claim: str) -> None:
    assert principal(claims, role_claim) == Principal("oidc:s", Role.UPLOADER)


@pytest.mark.parametrize(
    "claims", [{}, {"role": None}, {"role": 3}, {"role": {"viewer": 1}}, {"role": [["viewer"]]}]
)
def test_a_claim_without_a_known_role_gives_nobody(claims: dict[str, Any]) -> None:
    assert principal(claims, "role") is None


def test_the_user_name_stands_behind_the_subject() -> None:
    found = principal({"role": "it", "preferred_username": "ann"}, "role")
    assert found == Principal("oidc:s (ann)", Role.ADMIN)


def test_control_characters_do_not_reach_the_name() -> None:
    found = principal({"role": "it", "sub": "a\nb\x1b[2J\u202e"}, "role")
    assert found == Principal("oidc:a?b?[2J?", Role.ADMIN)


@pytest.mark.parametrize(
    ("role", "claimed", "expected_role", "labels"),
    [
        ("viewer", ["ward 3", 4], Role.VIEWER, {"ward 3"}),
        ("viewer", "ward 3", Role.VIEWER, {"ward 3"}),
        ("viewer", [], Role.VIEWER, set()),
        ("viewer", None, Role.VIEWER, set()),
        ("it", ["ward 3"], Role.UPLOADER, {"ward 3"}),
        ("it", None, Role.ADMIN, None),
    ],
)
def test_a_claim_limits_to_labels(
    role: str, claimed: object, expected_role: Role, labels: set[str] | None
) -> None:
    claims = {"sub": "s", "roles": [role], "groups": {"wards": claimed}}
    found = principal_of_claims(claims, role_claim="roles", roles=ROLES, label_claim="groups.wards")
    scope = ALL if labels is None else Scope(labels=frozenset(labels))
    assert found == Principal("oidc:s", expected_role, scope=scope)
