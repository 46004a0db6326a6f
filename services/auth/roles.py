"""Who may do what: one decision for fields, REST routes, subscriptions and minted URLs."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum

from services.auth.scope import ALL, Scope
from services.errors import Forbidden, Unauthenticated


class Role(IntEnum):
    """Roles; each may do what the ones before it may."""

    VIEWER = 1
    """Queries, frames, archives."""
    UPLOADER = 2
    """Also uploads, shares and labels."""
    ADMIN = 3
    """Also deletes, synchronizes and sees where Orthanc is."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking.

    Attributes:
        name: The token's name, the subject of the provider or `share:` with the share's id; for
            the audit trail.
        role: What they may do.
        scope: Which studies they may know of. A principal with less than all is no administrator.
        expires_at: When the credential ends, with time zone; None: when it is revoked.
        share_id: The share that let them in; None for people and programs of their own.
        may_download: Whether they may take archives and files away.
    """

    name: str
    role: Role
    scope: Scope = ALL
    expires_at: datetime | None = None
    share_id: str | None = None
    may_download: bool = True

    def __post_init__(self) -> None:
        """Check that nobody administers what they can't see.

        Raises:
            ValueError: An administrator has a limited scope.
        """
        if self.role is Role.ADMIN and not self.scope.is_all:
            raise ValueError("an administrator sees all studies")


LOCAL_ADMIN = Principal(name="local", role=Role.ADMIN)
"""Every client of a server without credentials, which listens on loopback only."""


def authorize(principal: Principal | None, needed: Role) -> Principal:
    """Let a principal pass or refuse it.

    Args:
        principal: The caller, None when it could not be identified.
        needed: The least role that may do it.

    Returns:
        The principal.

    Raises:
        Unauthenticated: The caller could not be identified.
        Forbidden: The role is too small.
    """
    if principal is None:
        raise Unauthenticated
    if principal.role < needed:
        raise Forbidden(f"This needs the role {needed.name.lower()}.")
    return principal
