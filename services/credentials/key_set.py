"""The public keys of an OpenID provider (RFC 7517), and which algorithms each may check. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

_RSA_BITS = range(2048, 8193)
"""Below: breakable (RFC 7518, 3.3). Above: one check takes milliseconds of the event loop."""
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_EC_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One public key.

    Attributes:
        kid: The provider's name of it, None when it has none.
        key: The key.
        algorithms: What may be checked with it; all asymmetric.
    """

    kid: str | None
    key: PublicKey
    algorithms: tuple[str, ...]


def parse_key_set(document: object) -> tuple[SigningKey, ...]:
    """Read a JWKS; keys that can't check signatures, or not safely, are left out.

    Args:
        document: The decoded JSON of the provider.

    Raises:
        ValueError: It is no JWKS, or has no key that can be used.
    """
    entries = document.get("keys") if isinstance(document, Mapping) else None
    if not isinstance(entries, list):
        raise ValueError("no list of keys")  # noqa: TRY004  # wrong content, not a wrong call
    parsed = [_parse_key(entry) for entry in entries if isinstance(entry, Mapping)]
    keys = tuple(key for key in parsed if key is not None)
    if not keys:
        raise ValueError("no key for asymmetric signatures")
    return keys


def select_key(keys: tuple[SigningKey, ...], kid: str | None) -> SigningKey | None:
    """Find the key that a JWT names; one without a name is taken when there is only one key."""
    if kid is None:
        return keys[0] if len(keys) == 1 else None
    return next((key for key in keys if key.kid == kid), None)


def _parse_key(entry: Mapping[str, Any]) -> SigningKey | None:
    if entry.get("use", "sig") != "sig" or entry.get("kty") == "oct":
        return None
    try:
        key = jwt.PyJWK(dict(entry)).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    if not isinstance(key, PublicKey):
        # Nobody may publish a private key; one that did can't vouch for anybody.
        return None
    declared = entry.get("alg")
    algorithms = tuple(a for a in _algorithms(key) if declared in (None, a))
    kid = entry.get("kid")
    return (
        SigningKey(kid if isinstance(kid, str) else None, key, algorithms) if algorithms else None
    )


def _algorithms(key: PublicKey) -> tuple[str, ...]:
    if isinstance(key, rsa.RSAPublicKey):
        return _RSA_ALGORITHMS if key.key_size in _RSA_BITS else ()
    if isinstance(key, ec.EllipticCurvePublicKey):
        algorithm = _EC_ALGORITHMS.get(key.curve.name)
        return (algorithm,) if algorithm else ()
    return ("EdDSA",)
