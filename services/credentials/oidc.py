"""JWTs of an OpenID provider, checked against the keys that it publishes."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import httpx
import jwt

from services.access import Principal
from services.credentials.claims import principal_of_claims
from services.credentials.key_set import SigningKey, parse_key_set, select_key
from services.credentials.oidc_rules import OidcRules, is_safe_provider_url

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
        while True:
            await self._refresh()
            await asyncio.sleep(_FRESH_SECONDS if self._keys else _RETRY_SECONDS)

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
