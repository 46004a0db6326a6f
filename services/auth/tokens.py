"""Static bearer tokens: created, revoked and looked up.

A token is 256 random bits, so one round of SHA-256 is enough: slow hashes protect passwords that
people choose. A fast hash also keeps a flood of wrong tokens cheap, which is why failed look-ups
need neither a delay nor a lock-out.
"""

import asyncio
import hashlib
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import pymongo
from pymongo import ReadPreference
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from models import TokenDocument
from models.stored import stored_name
from services.auth.roles import LOCAL_ADMIN, Principal, Role
from services.auth.scope import ALL, Scope
from services.database import translated_database_faults
from services.errors import InvalidInput, NotFound
from services.tasks import cancel_and_wait

_CREATED_AT = stored_name(TokenDocument.created_at)
_REVOKED_AT = stored_name(TokenDocument.revoked_at)


TOKEN_PREFIX = "ogql_"  # noqa: S105  # what scanners for leaked secrets can look for
SHARE_TOKEN_PREFIX = "ogqs_"  # noqa: S105  # likewise, of shares
_TOKEN_BYTES = 32
_NAME = re.compile(r"[\w.@-](?:[\w.@ -]{0,62}[\w.@-])?", re.ASCII)
"""1 to 64 characters, without colons, which occur in principals of the OpenID provider."""

_FRESH_SECONDS = 1.0
"""How long tokens are used after they were read. Every process refuses a revoked token after this
time and one read of the collection, without any background task."""

_READ_SECONDS = 3.0
"""Longest wait for MongoDB, after which requests with a token get `DATABASE_UNAVAILABLE`."""


def digest_of(token: str) -> str:
    """Return the SHA-256 of a token, 64 lower-case hex digits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def is_token_name(name: str) -> bool:
    """Return whether a token may have this name."""
    return _NAME.fullmatch(name) is not None and name != LOCAL_ADMIN.name


class TokenStore:
    """The tokens in MongoDB.

    Args:
        database: An open database.
    """

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._collection = database[TokenDocument.Settings.name]

    async def create(
        self,
        *,
        name: str,
        role: Role,
        now: datetime,
        lifetime: timedelta | None = None,
        labels: Sequence[str] | None = None,
    ) -> str:
        """Create a token.

        Args:
            name: A name that no valid or expired token has; names of revoked tokens can be reused.
            role: The permissions of its holder.
            now: The time, with time zone.
            lifetime: How long it is accepted; None: until it is revoked.
            labels: Its holder sees only studies with one of these; None: all.

        Returns:
            The token. It can't be read again: only its hash is stored.

        Raises:
            InvalidInput: The name is taken or not allowed, or an administrator is limited.
            DatabaseUnavailable: MongoDB does not answer.
        """
        if not is_token_name(name):
            raise InvalidInput(
                "A token's name has 1 to 64 letters, digits, spaces or . _ @ - and is not "
                f'"{LOCAL_ADMIN.name}".'
            )
        if labels is not None and role is Role.ADMIN:
            raise InvalidInput("An administrator sees all studies: take another role, or no label.")
        secret = TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
        token = TokenDocument.model_construct(
            id=name,
            role=role.name.lower(),
            sha256=digest_of(secret),
            labels=None if labels is None else list(labels),
            created_at=now,
            expires_at=None if lifetime is None else now + lifetime,
        )
        with translated_database_faults():
            try:
                # If a token of this name is not revoked, the upsert fails because `_id` exists.
                await self._collection.replace_one(
                    {"_id": name, _REVOKED_AT: {"$ne": None}}, _stored(token), upsert=True
                )
            except DuplicateKeyError as exc:
                message = f'There is a token "{name}" already. Revoke it or take another name.'
                raise InvalidInput(message) from exc
        return secret

    async def revoke(self, name: str, *, now: datetime) -> None:
        """Make a token invalid; every process refuses it within 2 seconds.

        Raises:
            NotFound: No token that is not revoked has this name.
            DatabaseUnavailable: MongoDB does not answer.
        """
        with translated_database_faults():
            result = await self._collection.update_one(
                {"_id": name, _REVOKED_AT: None}, {"$set": {_REVOKED_AT: now}}
            )
        if not result.matched_count:
            raise NotFound(f'There is no token "{name}".')

    async def read_all(self) -> tuple[TokenDocument, ...]:
        """Read all tokens including revoked ones, the oldest first.

        Raises:
            DatabaseUnavailable: MongoDB does not answer within 3 seconds.
        """
        # While a new primary is elected, the other members know the tokens as well.
        readable = self._collection.with_options(read_preference=ReadPreference.PRIMARY_PREFERRED)
        with translated_database_faults(), pymongo.timeout(_READ_SECONDS):
            documents = await readable.find().sort({_CREATED_AT: 1, "_id": 1}).to_list()
        return tuple(TokenDocument.model_validate(document) for document in documents)

    async def add(self, tokens: Sequence[TokenDocument]) -> list[str]:
        """Add tokens whose names were never used.

        Args:
            tokens: Those whose name exists already, revoked or not, are left out.

        Returns:
            The names that were added.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        added = []
        with translated_database_faults():
            for token in tokens:
                result = await self._collection.update_one(
                    {"_id": token.id}, {"$setOnInsert": _stored(token)}, upsert=True
                )
                if result.upserted_id is not None:
                    added.append(token.id)
        return added


def _stored(token: TokenDocument) -> dict[str, Any]:
    document: dict[str, Any] = token.model_dump(by_alias=True, exclude_none=True)
    del document["_id"]
    return document


class TokenCache:
    """The tokens that this process accepts, read again when they are older than a second.

    Args:
        read_all: Reads all tokens.
        monotonic: A clock that never goes back, in seconds.
    """

    def __init__(
        self,
        read_all: Callable[[], Awaitable[Sequence[TokenDocument]]],
        *,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._read_all = read_all
        self._monotonic = monotonic
        self._by_digest: Mapping[str, TokenDocument] = {}
        self._has_any = False
        self._read_at = float("-inf")
        self._reading: asyncio.Task[None] | None = None

    @property
    def has_any(self) -> bool:
        """Whether any token is known, valid or not: then a credential is needed."""
        return self._has_any

    async def refresh(self) -> None:
        """Read the tokens again unless they were read within the last second.

        Simultaneous callers share one read.

        Raises:
            DatabaseUnavailable: They can't be read; tokens that were read before are not used.
        """
        if self._monotonic() - self._read_at < _FRESH_SECONDS:
            return
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read())
        # A cancelled caller must not cancel the read for the others.
        await asyncio.shield(self._reading)

    def find(self, token: str, now: datetime) -> Principal | None:
        """Return the principal of a token; None if it is unknown, revoked or expired.

        The key is a hash of the text that the caller sent. The duration of the look-up reveals
        nothing about tokens, so no constant-time comparison is needed.

        Args:
            token: What the caller sent.
            now: The time, with time zone.
        """
        found = self._by_digest.get(digest_of(token))
        if found is None or not found.is_valid_at(now):
            return None
        role = Role.__members__.get(found.role.upper())
        if role is None:
            return None
        scope = ALL if found.labels is None else Scope(labels=frozenset(found.labels))
        if role is Role.ADMIN and not scope.is_all:
            return None
        return Principal(name=found.id, role=role, scope=scope, expires_at=found.expires_at)

    async def aclose(self) -> None:
        """Cancel a running read."""
        if self._reading is not None:
            await cancel_and_wait(self._reading)

    async def _read(self) -> None:
        # The time before the read counts: a revocation during the read may be missing.
        begun = self._monotonic()
        tokens = await self._read_all()
        self._by_digest = {token.sha256: token for token in tokens}
        # Tokens that are gone were lost or removed by hand: the server must not open because of it.
        self._has_any = self._has_any or bool(tokens)
        self._read_at = begun
