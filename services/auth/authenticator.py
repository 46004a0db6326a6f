"""Identifies principals by an `Authorization` header."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
from pymongo.asynchronous.database import AsyncDatabase

from services.auth.oidc import OidcRules, OidcVerifier
from services.auth.roles import LOCAL_ADMIN, Principal
from services.auth.tokens import SHARE_TOKEN_PREFIX, TOKEN_PREFIX, TokenCache, TokenStore
from services.auth.tokens_file import take_over_tokens_file
from services.errors import DatabaseUnavailable
from services.tasks import Supervisor

_CREDENTIAL_MAX_CHARACTERS = 16 * 1024
"""Longest credential: JWTs with many group claims have up to 8 kB."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


FindByShare = Callable[[str], Awaitable[Principal | None]]
"""Returns who holds the token of a share; None when it is unknown or has ended."""


class Authenticator:
    """Identifies callers. The reason why a credential is wrong is neither returned nor logged.

    A wrong credential costs one hash or one check of a signature, and credentials of 256 bits can't
    be guessed. So there is no lock-out, which would only let attackers exclude users.

    Args:
        tokens: The static tokens.
        oidc: The OpenID provider's verifier, None when none is configured.
        find_by_share: Identifies the holders of shares; None where there are none.
        closed_because: Why there is no anonymous access while there are no credentials; None where
            everybody who reaches the server may be its admin then.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        tokens: TokenCache,
        oidc: OidcVerifier | None = None,
        *,
        find_by_share: FindByShare | None = None,
        closed_because: str | None = None,
        now: Callable[[], datetime] = _utc_now,
    ) -> None:
        self._tokens = tokens
        self._oidc = oidc
        self._find_by_share = find_by_share
        self.closed_because = closed_because
        self._now = now

    @property
    def has_credentials(self) -> bool:
        """Whether an OpenID provider is configured, or there is or was a token."""
        return self._oidc is not None or self._tokens.has_any

    @property
    def is_open(self) -> bool:
        """Whether everybody who reaches the server is its admin."""
        return self.closed_because is None and not self.has_credentials

    async def authenticate(self, authorization: str | None) -> Principal | None:
        """Identify a caller.

        Args:
            authorization: The `Authorization` header (RFC 6750, 2.1), None when there is none.

        Returns:
            The principal; None without credentials and with unknown ones. `LOCAL_ADMIN` while
            the server is open, but for the holders of shares.

        Raises:
            DatabaseUnavailable: Whether a token is still valid can't be looked up.
        """
        credential = bearer_credential(authorization)
        if credential is not None and credential.startswith(SHARE_TOKEN_PREFIX):
            # On an open server, too, a link shows what it is for.
            return await self.authenticate_share(credential)
        if self.is_open:
            return await self._authenticate_openly(authorization)
        if credential is None:
            return None
        if credential.startswith(TOKEN_PREFIX):
            await self._tokens.refresh()
            return self._tokens.find(credential, self._now())
        return None if self._oidc is None else await self._oidc.verify(credential)

    async def authenticate_share(self, token: str) -> Principal | None:
        """Identify the holder of a share by its token; None when it is unknown or has ended.

        Raises:
            DatabaseUnavailable: Whether the share is still valid can't be looked up.
        """
        return None if self._find_by_share is None else await self._find_by_share(token)

    async def _authenticate_openly(self, authorization: str | None) -> Principal | None:
        """Let every client in, unless a first token was created since the last look."""
        try:
            await self._tokens.refresh()
        except DatabaseUnavailable:
            # Without MongoDB there are no patients to show; what is away must not look forbidden.
            return LOCAL_ADMIN
        return LOCAL_ADMIN if self.is_open else await self.authenticate(authorization)


def bearer_credential(authorization: str | None) -> str | None:
    """Take the credential out of an `Authorization` header; None when it has no usable one."""
    if authorization is None or len(authorization) > _CREDENTIAL_MAX_CHARACTERS:
        return None
    scheme, _, credential = authorization.strip().partition(" ")
    return credential.strip() or None if scheme.lower() == "bearer" else None


@asynccontextmanager
async def open_authenticator(
    database: AsyncDatabase[dict[str, Any]],
    *,
    tokens_file: Path,
    oidc: OidcRules | None = None,
    find_by_share: FindByShare | None = None,
    closed_because: str | None = None,
    supervisor: Supervisor | None = None,
) -> AsyncIterator[Authenticator]:
    """Read the credentials, and keep the provider's keys fresh while inside.

    Args:
        database: Holds the tokens.
        tokens_file: A file of tokens of an earlier release, which is taken over when it exists.
        oidc: Rules of an OpenID provider. It need not answer yet.
        find_by_share: Identifies the holders of shares; None where there are none.
        closed_because: Why there is no anonymous access; None where there is.
        supervisor: Of the background tasks of this process; None: one of its own.

    Raises:
        TokensFileError: There is a file of tokens, and it is broken.
        DatabaseUnavailable: MongoDB does not answer.
    """
    store = TokenStore(database)
    await take_over_tokens_file(tokens_file, store)
    tokens = TokenCache(store.read_all)
    supervisor = supervisor or Supervisor()
    async with AsyncExitStack() as stack:
        stack.push_async_callback(tokens.aclose)
        await tokens.refresh()
        verifier = None
        if oidc is not None:
            http = await stack.enter_async_context(httpx.AsyncClient(follow_redirects=False))
            verifier = OidcVerifier(http, oidc)
            await stack.enter_async_context(supervisor.running("OpenID keys", verifier.follow))
        yield Authenticator(
            tokens, verifier, find_by_share=find_by_share, closed_because=closed_because
        )
