import pytest

from services.auth.roles import Principal, Role, authorize
from services.errors import Forbidden, Unauthenticated


@pytest.mark.parametrize("role", list(Role))
@pytest.mark.parametrize("needed", list(Role))
def test_a_role_may_do_what_the_smaller_ones_may(role: Role, needed: Role) -> None:
    principal = Principal("somebody", role)
    if role >= needed:
        assert authorize(principal, needed) is principal
    else:
        with pytest.raises(Forbidden, match=f"needs the role {needed.name.lower()}"):
            authorize(principal, needed)


@pytest.mark.parametrize("needed", list(Role))
def test_nobody_may_do_anything(needed: Role) -> None:
    with pytest.raises(Unauthenticated):
        authorize(None, needed)
