"""JWTs of an OpenID provider, checked with the keys that it publishes (OpenID Connect Core 1.0).

The key set is our own because PyJWT's `PyJWKClient` reads an answer of any size, knows no discovery
document and drops keys without `kid`. Its pause between fetches begins only after a success, so
that forged tokens would make it request a failing provider without pause.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from services.auth.roles import Principal, Role
from services.auth.scope import ALL, Scope
from services.tasks import HANGING_SECONDS, heartbeat

_THIS_MACHINE = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class OidcRules:
    """Which JWTs are accepted.

    Attributes:
        issuer: The exact value of `iss`.
        audience: The value of `aud`, or one of its values.
        jwks_url: URL of the keys; None: the one in the provider's discovery document.
        role_claim: The claim with the roles; see `principal_of_claims`.
        roles: Our role by the provider's name of it.
        label_claim: The claim with the labels that limit what is seen; None: all is seen.
    """

    issuer: str
    audience: str
    jwks_url: str | None = None
    role_claim: str = "realm_access.roles"
    roles: Mapping[str, Role] = field(
        default_factory=lambda: {role.name.lower(): role for role in Role}
    )
    label_claim: str | None = None


def is_safe_provider_url(url: str) -> bool:
    """Return whether keys from a URL can be trusted: https, or http on the local machine."""
    try:
        parsed = urlsplit(url)
    except ValueError:
        return False
    if parsed.scheme == "http":
        return parsed.hostname in _THIS_MACHINE
    return parsed.scheme == "https" and bool(parsed.hostname)


_RSA_BITS = range(2048, 8193)
"""Shorter keys can be broken (RFC 7518 3.3); a longer one takes milliseconds of the event loop."""
_RSA_ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_EC_ALGORITHMS = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512"}

PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey


@dataclass(frozen=True, slots=True)
class SigningKey:
    """One public key.

    Attributes:
        kid: The provider's name of the key, None when it has none.
        key: The key.
        algorithms: Algorithms of signatures that it may check; all are asymmetric.
    """

    kid: str | None
    key: PublicKey
    algorithms: tuple[str, ...]


def parse_key_set(document: object) -> tuple[SigningKey, ...]:
    """Read a JWKS (RFC 7517 5) without the keys that can't check signatures safely.

    Args:
        document: The decoded JSON of the provider.

    Raises:
        ValueError: It is not a JWKS, or has no usable key.
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
    """Return the key that a JWT names; without a name, the only key if there is just one."""
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
        # Signatures of a published private key prove nothing.
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


_NAME_MAX_CHARACTERS = 128


def principal_of_claims(
    claims: Mapping[str, Any],
    *,
    role_claim: str,
    roles: Mapping[str, Role],
    label_claim: str | None = None,
) -> Principal | None:
    """Turn the claims of a JWT whose signature was checked into a principal.

    Args:
        claims: The claims (RFC 7519, section 4).
        role_claim: Name of the claim that holds roles, or a path of names with dots between
            them, such as `realm_access.roles`. A claim of exactly this name comes first.
        roles: Our role by the provider's name of it.
        label_claim: Name of the claim that holds labels, or a path of names; None: no limit. Who
            has no such claim sees no study, administrators apart; who has one is no administrator.

    Returns:
        The principal with its highest role; None when none of its roles is known. Its name is
        `oidc:`, the subject, which the provider never assigns twice (OpenID Connect Core 5.7), and
        the user name in parentheses, if there is one.
    """
    granted = [roles[name] for name in _strings(_claim(claims, role_claim)) if name in roles]
    subject = claims.get("sub")
    if not granted or not isinstance(subject, str) or not subject:
        return None
    username = claims.get("preferred_username")
    shown = f" ({_printable(username)})" if isinstance(username, str) and username else ""
    role, scope = max(granted), ALL
    if label_claim is not None:
        claimed = _claim(claims, label_claim)
        if claimed is not None or role is not Role.ADMIN:
            scope = Scope(labels=frozenset(_texts(claimed)))
            role = min(role, Role.UPLOADER)
    return Principal(
        name=f"oidc:{_printable(subject)}{shown}",
        role=role,
        scope=scope,
        expires_at=_moment(claims.get("exp")),
    )


def _moment(seconds: object) -> datetime | None:
    """Read a NumericDate (RFC 7519, section 2); None if it is not one or out of range."""
    if not isinstance(seconds, int | float):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (OverflowError, OSError, ValueError):
        return None


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
    """Read a string, strings separated by spaces (as in `scope`) or a list of strings."""
    if isinstance(value, str):
        return [value, *value.split()]
    if isinstance(value, list):
        return [entry for entry in value if isinstance(entry, str)]
    return []


def _texts(value: object) -> list[str]:
    """Read one string or a list of strings; labels may hold spaces."""
    entries = value if isinstance(value, list) else [value]
    return [entry for entry in entries if isinstance(entry, str)]


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_NAME_MAX_CHARACTERS])


_log = logging.getLogger(__name__)

_LEEWAY_SECONDS = 30
"""Largest difference between the provider's clock and ours."""
_RETRY_SECONDS = 10.0
"""Shortest time between two fetches: unknown key names must not cause a request each."""
_FRESH_SECONDS = 3600.0
"""Keys are fetched again after this time: a withdrawn key must not be accepted any longer."""
_FETCH_SECONDS = 5.0
_DOCUMENT_MAX_BYTES = 1024 * 1024


class KeysUnavailable(Exception):
    """The provider sent no usable keys; the message has the reason for the log."""


class OidcVerifier:
    """Checks JWTs; keeps the provider's keys while it does not answer.

    Args:
        http: Client for the provider.
        rules: Which JWTs are accepted.
        monotonic: A clock that never goes back, in seconds.
    """

    def __init__(
        self,
        http: httpx.AsyncClient,
        rules: OidcRules,
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._http = http
        self._rules = rules
        self._monotonic = monotonic
        self._keys: tuple[SigningKey, ...] = ()
        self._tried_at = float("-inf")
        self._fetching = asyncio.Lock()

    async def verify(self, token: str) -> Principal | None:
        """Return the principal of a JWT; None when it is not accepted.

        Args:
            token: The bearer token of a request; any text.
        """
        try:
            key = await self._key(_key_name(token))
        except ValueError:
            return None
        claims = None if key is None else self._checked_claims(token, key)
        if claims is None:
            return None
        principal = principal_of_claims(
            claims,
            role_claim=self._rules.role_claim,
            roles=self._rules.roles,
            label_claim=self._rules.label_claim,
        )
        if principal is None:
            _log.warning(
                "A valid token of the OpenID provider has no subject, or no role in the claim %s "
                "that OIDC_ROLES names",
                self._rules.role_claim,
            )
        return principal

    async def fetch_keys(self) -> int:
        """Fetch the provider's keys now.

        Returns:
            The number of usable keys.

        Raises:
            KeysUnavailable: The provider does not answer, or answers without usable keys.
        """
        self._tried_at = self._monotonic()
        try:
            self._keys = parse_key_set(await self._get_json(await self._jwks_url()))
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as exc:
            raise KeysUnavailable(type(exc).__name__) from exc
        except (ValueError, RecursionError) as exc:
            raise KeysUnavailable(str(exc)) from exc
        return len(self._keys)

    async def follow(self) -> None:
        """Keep the keys fresh until cancelled: fetch them now and every hour."""
        with heartbeat("OpenID keys") as alive:
            while True:
                alive.beat(HANGING_SECONDS)
                await self._refresh()
                pause = _FRESH_SECONDS if self._keys else _RETRY_SECONDS
                alive.beat(pause + HANGING_SECONDS)
                await asyncio.sleep(pause)

    async def _key(self, kid: str | None) -> SigningKey | None:
        key = select_key(self._keys, kid)
        if key is None:
            await self._refresh()
            key = select_key(self._keys, kid)
        return key

    async def _refresh(self) -> None:
        async with self._fetching:
            if self._monotonic() - self._tried_at < _RETRY_SECONDS:
                return
            try:
                await self.fetch_keys()
            except KeysUnavailable as exc:
                _log.warning("The keys of the OpenID provider can't be fetched: %s", exc)

    async def _jwks_url(self) -> str:
        if self._rules.jwks_url is not None:
            return self._rules.jwks_url
        url = self._rules.issuer.rstrip("/") + "/.well-known/openid-configuration"
        discovery = await self._get_json(url)
        if not isinstance(discovery, Mapping) or discovery.get("issuer") != self._rules.issuer:
            raise ValueError("the discovery document is of another issuer than OIDC_ISSUER")
        jwks_url = discovery.get("jwks_uri")
        if not isinstance(jwks_url, str) or not is_safe_provider_url(jwks_url):
            raise ValueError("the discovery document names no https address of keys")
        return jwks_url

    async def _get_json(self, url: str) -> Any:  # noqa: ANN401  # JSON is what it is
        body = bytearray()
        async with asyncio.timeout(_FETCH_SECONDS):
            async with self._http.stream("GET", url, timeout=_FETCH_SECONDS) as response:
                if not response.is_success:
                    raise ValueError(f"it answered {response.status_code}")
                async for chunk in response.aiter_bytes():
                    body += chunk
                    if len(body) > _DOCUMENT_MAX_BYTES:
                        raise ValueError("its answer is larger than 1 MiB")
        return json.loads(body)

    def _checked_claims(self, token: str, key: SigningKey) -> dict[str, Any] | None:
        try:
            return jwt.decode(
                token,
                key.key,
                algorithms=list(key.algorithms),
                issuer=self._rules.issuer,
                audience=self._rules.audience,
                leeway=_LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except (jwt.PyJWTError, ValueError, TypeError, RecursionError, OverflowError):
            # The reason is not reported: it would help the sender of a forged token.
            return None


def _key_name(token: str) -> str | None:
    """Read the key's name (`kid`) from the header of a JWT, before its signature is checked.

    Raises:
        ValueError: It is not a JWT.
    """
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except (jwt.PyJWTError, TypeError, RecursionError) as exc:
        raise ValueError("no JWT") from exc
    if kid is not None and not isinstance(kid, str):
        raise ValueError("the name of the key is not a string")
    return kid
