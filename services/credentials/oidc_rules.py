"""Which JWTs of an OpenID provider are accepted. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from services.access import Role

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class OidcRules:
    """Which JWTs are accepted.

    Attributes:
        issuer: The `iss` that they must have, exactly.
        audience: The `aud` that they must have, or have among others.
        jwks_url: Where the keys are; None: as the provider's discovery document says.
        role_claim: The claim with the roles; see `principal_of_claims`.
        roles: Our role by the provider's name of it.
    """

    issuer: str
    audience: str
    jwks_url: str | None = None
    role_claim: str = "realm_access.roles"
    roles: Mapping[str, Role] = field(
        default_factory=lambda: {role.name.lower(): role for role in Role}
    )


def is_safe_provider_url(url: str) -> bool:
    """Tell whether keys from there can be trusted: https, or http on this machine."""
    try:
        parsed = urlsplit(url)
    except ValueError:
        return False
    if parsed.scheme == "http":
        return parsed.hostname in _THIS_MACHINE
    return parsed.scheme == "https" and bool(parsed.hostname)
