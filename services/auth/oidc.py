"""JWTs of an OpenID provider, checked against the keys that it publishes."""

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
from services.tasks import HANGING_SECONDS, heartbeat

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
    return Principal(
        name=f"oidc:{_printable(subject)}{shown}",
        role=max(granted),
        expires_at=_moment(claims.get("exp")),
    )


def _moment(seconds: object) -> datetime | None:
    """Read a NumericDate (RFC 7519, section 2); None where it is none, or beyond all calendars."""
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
    """Read one string, strings between spaces (as `scope` has them) or a list of strings."""
    if isinstance(value, str):
        return [value, *value.split()]
    if isinstance(value, list):
        return [entry for entry in value if isinstance(entry, str)]
    return []


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:_NAME_MAX_CHARACTERS])


_log = logging.getLogger(__name__)

_LEEWAY_SECONDS = 30
"""How far the provider's clock may be from ours."""
_RETRY_SECONDS = 10.0
"""Least time between two fetches: unknown key names must not make us ask all the time."""
_FRESH_SECONDS = 3600.0
"""Keys are fetched again after this time, so that a withdrawn one stops being accepted."""
_FETCH_SECONDS = 5.0
_DOCUMENT_MAX_BYTES = 1024 * 1024


class KeysUnavailable(Exception):
    """The provider gave no usable keys; the message says why, for the log."""


class OidcVerifier:
    """Checks JWTs; fetches the provider's keys when it must and keeps them while it is away.

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
        """Return who a JWT stands for; None when it is not one that we accept.

        Args:
            token: What came as the bearer token, of any content.
        """
        try:
            key = await self._key(_key_name(token))
        except ValueError:
            return None
        claims = None if key is None else self._checked_claims(token, key)
        if claims is None:
            return None
        principal = principal_of_claims(
            claims, role_claim=self._rules.role_claim, roles=self._rules.roles
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
            How many can be used.

        Raises:
            KeysUnavailable: The provider does not answer, or not with keys.
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
            # The reason stays here: it would tell the sender of a forged one what to mend.
            return None


def _key_name(token: str) -> str | None:
    """Read the key's name (`kid`) from a JWT's header, which nobody has checked yet.

    Raises:
        ValueError: This is no JWT.
    """
    try:
        kid = jwt.get_unverified_header(token).get("kid")
    except (jwt.PyJWTError, TypeError, RecursionError) as exc:
        raise ValueError("no JWT") from exc
    if kid is not None and not isinstance(kid, str):
        raise ValueError("the name of the key is no string")
    return kid
