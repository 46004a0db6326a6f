"""Who may do what: one decision for fields, REST routes, subscriptions and minted URLs."""

from dataclasses import dataclass
from enum import IntEnum

from services.errors import Forbidden, Unauthenticated


class Role(IntEnum):
    """Roles; each may do what the ones before it may."""

    VIEWER = 1
    """Queries, frames, archives."""
    UPLOADER = 2
    """Also uploads."""
    ADMIN = 3
    """Also deletes, synchronizes and sees where Orthanc is."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Which studies somebody may know of; for them the others do not exist.

    Attributes:
        study_ids: Orthanc's identifiers; None: all studies.
    """

    study_ids: frozenset[str] | None = None

    def includes(self, study_id: str) -> bool:
        """Return whether a study, by Orthanc's identifier, is one of them."""
        return self.study_ids is None or study_id in self.study_ids


ALL = Scope()
"""Every study."""


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking.

    Attributes:
        name: The token's name or the subject of the provider; for the audit trail.
        role: What they may do.
        scope: Which studies they may know of. DICOMweb honours it; no credential limits it yet.
    """

    name: str
    role: Role
    scope: Scope = ALL


LOCAL_ADMIN = Principal(name="local", role=Role.ADMIN)
"""Whoever reaches a server without credentials, which listens on loopback only."""


def authorize(principal: Principal | None, needed: Role) -> Principal:
    """Let a principal pass or refuse it.

    Args:
        principal: Who is asking, None when nobody could be identified.
        needed: The least role that may do it.

    Returns:
        The principal.

    Raises:
        Unauthenticated: Nobody could be identified.
        Forbidden: The role is too small.
    """
    if principal is None:
        raise Unauthenticated
    if principal.role < needed:
        raise Forbidden(f"This needs the role {needed.name.lower()}.")
    return principal
