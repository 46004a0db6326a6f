"""Roles and principals, and the authorization of fields, REST routes and subscriptions."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from services.auth.scope import ALL, Scope
from services.errors import Forbidden, Unauthenticated


class Role(IntEnum):
    """Roles; each includes the permissions of the ones before it."""

    VIEWER = 1
    """Queries, frames, archives."""
    UPLOADER = 2
    """Also uploads, shares and labels."""
    ADMIN = 3
    """Also deletes, synchronizes and sees where Orthanc is."""


@dataclass(frozen=True, slots=True)
class Principal:
    """The sender of a request.

    Attributes:
        name: The token's name, the subject of the provider or `share:` with the share's id; for
            the audit trail.
        role: Their permissions.
        scope: The studies that they may see. A principal with a limited scope is not an
            administrator.
        expires_at: When the credential expires, with time zone; None: it does not.
        share_id: The share whose link they use; None for other credentials.
        may_download: Whether they may download archives and files.
    """

    name: str
    role: Role
    scope: Scope = ALL
    expires_at: datetime | None = None
    share_id: str | None = None
    may_download: bool = True

    def __post_init__(self) -> None:
        """Check that an administrator has an unlimited scope.

        Raises:
            ValueError: An administrator has a limited scope.
        """
        if self.role is Role.ADMIN and not self.scope.is_all:
            raise ValueError("an administrator sees all studies")


LOCAL_ADMIN = Principal(name="local", role=Role.ADMIN)
"""Every client of a server without credentials, which listens on loopback only."""


def authorize(principal: Principal | None, needed: Role) -> Principal:
    """Require a role.

    Args:
        principal: The caller; None if it could not be identified.
        needed: The lowest role that is sufficient.

    Returns:
        The principal.

    Raises:
        Unauthenticated: The caller could not be identified.
        Forbidden: The caller's role is not sufficient.
    """
    if principal is None:
        raise Unauthenticated
    if principal.role < needed:
        raise Forbidden(f"This needs the role {needed.name.lower()}.")
    return principal
