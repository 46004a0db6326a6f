"""What a checked JWT says about its holder. Pure."""

from collections.abc import Mapping
from typing import Any

from services.access import Principal, Role

_NAME_MAX_CHARACTERS = 128


def principal_of_claims(
    claims: Mapping[str, Any], *, role_claim: str, roles: Mapping[str, Role]
) -> Principal | None:
    """Turn the claims of a JWT whose signature was checked into a principal.

    Args:
        claims: The claims (RFC 7519, section 4).
        role_claim: Name of the claim that holds roles, or a path of names with dots between
            them, as `realm_access.roles`. A claim of exactly this name wins over the path.
        roles: Our role by the provider's name of it.

    Returns:
        The principal with the highest of its roles; None when it has none that we know. Its name
        is `oidc:` with the subject, which the provider never gives to somebody else (OpenID
        Connect Core 5.7), and the user name behind it where there is one.
    """
    granted = [roles[name] for name in _strings(_claim(claims, role_claim)) if name in roles]
    subject = claims.get("sub")
    if not granted or not isinstance(subject, str) or not subject:
        return None
    username = claims.get("preferred_username")
    shown = f" ({_printable(username)})" if isinstance(username, str) and username else ""
    return Principal(name=f"oidc:{_printable(subject)}{shown}", role=max(granted))


def _claim(claims: Mapping[str, Any], path: str) -> object:
    if path in claims:
        return claims[path]
    found: object = claims
    for name in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(name)
    return found


def _strings(value: object) -> list[str]:
    """Read one string, strings between spaces (as `scope` has them) or a list of strings."""
    if isinstance(value, str):
        return [value, *value.split()]
    if isinstance(value, list):
        return [entry for entry in value if isinstance(entry, str)]
    return []


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_NAME_MAX_CHARACTERS])
