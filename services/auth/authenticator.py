"""From an `Authorization` header to a principal."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx

from services.auth.oidc import OidcRules, OidcVerifier
from services.auth.roles import LOCAL_ADMIN, Principal
from services.auth.tokens import TOKEN_PREFIX, TokenFile
from services.tasks import Supervisor

_CREDENTIAL_MAX_CHARACTERS = 16 * 1024
"""JWTs with many group claims reach 8 kB; parsing more is work for nobody."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Authenticator:
    """Tells who is asking. What was wrong with a credential is neither answered nor logged.

    Wrong credentials cost a hash or one check of a signature and can't be guessed (256 bits), so
    there is no lock-out: it would only let strangers shut users out.

    Args:
        tokens: The static tokens.
        oidc: The OpenID provider's verifier, None when none is configured.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        tokens: TokenFile,
        oidc: OidcVerifier | None = None,
        *,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._tokens = tokens
        self._oidc = oidc
        self._now = now

    @property
    def is_open(self) -> bool:
        """Whether no credential is configured: everybody who reaches the server is its admin."""
        return self._oidc is None and not self._tokens.is_configured

    async def authenticate(self, authorization: str | None) -> Principal | None:
        """Identify a caller.

        Args:
            authorization: The `Authorization` header (RFC 6750, 2.1), None when there is none.

        Returns:
            The principal; None without credentials and with ones that nobody issued.
            `LOCAL_ADMIN` while no credential is configured.
        """
        if self.is_open:
            return LOCAL_ADMIN
        credential = bearer_credential(authorization)
        if credential is None:
            return None
        if credential.startswith(TOKEN_PREFIX):
            return self._tokens.find(credential, self._now())
        return None if self._oidc is None else await self._oidc.verify(credential)


def bearer_credential(authorization: str | None) -> str | None:
    """Take the credential out of an `Authorization` header; None when it has no usable one."""
    if authorization is None or len(authorization) > _CREDENTIAL_MAX_CHARACTERS:
        return None
    scheme, _, credential = authorization.strip().partition(" ")
    return credential.strip() or None if scheme.lower() == "bearer" else None


@asynccontextmanager
async def open_authenticator(
    *,
    tokens_file: Path,
    tokens_required: bool,
    oidc: OidcRules | None = None,
    supervisor: Supervisor | None = None,
) -> AsyncIterator[Authenticator]:
    """Read the credentials and follow their changes while inside.

    Args:
        tokens_file: The file of tokens.
        tokens_required: Whether it must be there, as it must when a setting names it.
        oidc: Rules of an OpenID provider. It need not answer yet.
        supervisor: Of the background tasks of this process; None: one of its own.

    Raises:
        TokensFileError: The file of tokens is broken, or missing though required.
    """
    tokens = await asyncio.to_thread(TokenFile, tokens_file, is_required=tokens_required)
    supervisor = supervisor or Supervisor()
    async with AsyncExitStack() as stack:
        verifier = None
        if oidc is not None:
            http = await stack.enter_async_context(httpx.AsyncClient(follow_redirects=False))
            verifier = OidcVerifier(http, oidc)
            await stack.enter_async_context(supervisor.running("OpenID keys", verifier.follow))
        await stack.enter_async_context(supervisor.running("tokens", tokens.follow))
        yield Authenticator(tokens, verifier)
