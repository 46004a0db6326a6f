"""Making, ending and honouring shares."""

import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from cachetools import TTLCache
from pymongo.asynchronous.database import AsyncDatabase

from models import ShareDocument
from models.stored import stored_name
from services.auth.roles import Principal, Role
from services.auth.scope import Scope
from services.auth.tokens import SHARE_TOKEN_PREFIX, digest_of
from services.errors import DatabaseUnavailable, InvalidInput, NotFound
from services.index.record import to_stored_precision
from services.query.paging import Page, PageRequest
from services.sharing.store import RecentShares, ShareStore

_LAST_USED_AT = stored_name(ShareDocument.last_used_at)
_OPENED_AT = stored_name(ShareDocument.opened_at)


_TOKEN_BYTES = 32
_ID_BYTES = 8
_NAME_MAX_CHARACTERS = 128
_STUDIES_MAX = 100
"""Studies of one share: it is for one patient or one discussion, not for an archive."""

_USE_SECONDS = 60
"""Least time between two writes of the same share's use."""

_USED_MAX = 4096
"""Shares whose use is remembered: one more costs a command that changes nothing."""

_OPENING_SECONDS = 3600
"""Least time between two records of the audit trail that a share is used."""


@dataclass(frozen=True, slots=True)
class NewShare:
    """A share and its token, which can't be read again: only its hash is stored."""

    share: ShareDocument
    token: str


class Sharing:
    """The shares of this server. Make it with `open_sharing`.

    Args:
        store: The shares in MongoDB.
        max_days: Longest validity of a share, in days.
        page_max_size: Largest page of the list.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        store: ShareStore,
        *,
        max_days: int,
        page_max_size: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._store = store
        self._max_days = max_days
        self._page_max_size = page_max_size
        self._now = now
        self._by_digest = RecentShares(store.find_by_digest)
        self._by_id = RecentShares(store.find)
        # Of this process; between processes MongoDB decides.
        self._used: TTLCache[str, bool] = TTLCache(_USED_MAX, _USE_SECONDS)

    async def create(
        self,
        *,
        name: str,
        study_ids: Sequence[str],
        expires_at: datetime,
        may_download: bool,
        principal: Principal,
    ) -> NewShare:
        """Make a share.

        Args:
            name: For people; 1 to 128 characters.
            study_ids: Orthanc's identifiers of studies that its maker may see.
            expires_at: When it ends; without a zone it is taken as UTC.
            may_download: Whether archives and files may be taken.
            principal: Its maker.

        Raises:
            InvalidInput: The name is empty or too long, the time lies in the past or too far ahead,
                or there are no or too many studies.
            DatabaseUnavailable: MongoDB does not answer.
        """
        now = to_stored_precision(self._now())
        name = name.strip()
        if not 0 < len(name) <= _NAME_MAX_CHARACTERS or not name.isprintable():
            raise InvalidInput(f"name: 1 to {_NAME_MAX_CHARACTERS} printable characters.")
        unique = list(dict.fromkeys(study_ids))
        if not 0 < len(unique) <= _STUDIES_MAX:
            raise InvalidInput(f"studyIds: 1 to {_STUDIES_MAX} studies in one share.")
        if expires_at.tzinfo is None:
            expires_at = expires_at.replace(tzinfo=UTC)
        if not now < expires_at <= now + timedelta(days=self._max_days):
            raise InvalidInput(f"expiresAt: in the future, at most {self._max_days} days from now.")
        token = SHARE_TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
        share: ShareDocument = ShareDocument.model_construct(
            id=secrets.token_hex(_ID_BYTES),
            name=name,
            sha256=digest_of(token),
            study_ids=unique,
            may_download=may_download,
            created_at=now,
            created_by=principal.name,
            expires_at=to_stored_precision(expires_at),
        )
        await self._store.add(share)
        return NewShare(share, token)

    async def revoke(self, share_id: str, principal: Principal) -> ShareDocument:
        """End a share; every process refuses it, and the URLs minted under it, within 2 seconds.

        Args:
            share_id: Which; administrators may end everybody's.
            principal: Who asks.

        Raises:
            NotFound: There is no such share, or it is another principal's.
            DatabaseUnavailable: MongoDB does not answer.
        """
        share = await self._store.revoke(share_id, created_by=_maker(principal), now=self._now())
        if share is None:
            raise NotFound("There is no such share.")
        return share

    async def find(self, share_id: str, principal: Principal) -> ShareDocument | None:
        """Find a share that a principal made, or any for administrators."""
        if principal.role < Role.UPLOADER:
            return None
        share = await self._store.find(share_id)
        is_own = share is not None and _maker(principal) in (None, share.created_by)
        return share if is_own else None

    async def page(
        self, request: PageRequest, principal: Principal, *, include_ended: bool
    ) -> Page:
        """Read a page of the shares that a principal made, all for administrators.

        Raises:
            InvalidInput: The page makes no sense.
            DatabaseUnavailable: MongoDB does not answer.
        """
        return await self._store.page(
            request,
            created_by=_maker(principal),
            valid_at=None if include_ended else self._now(),
            max_size=self._page_max_size,
        )

    async def count(self, principal: Principal, *, include_ended: bool) -> int:
        """Count the shares of the list that `page` reads."""
        return await self._store.count(
            created_by=_maker(principal), valid_at=None if include_ended else self._now()
        )

    async def principal_of(self, token: str) -> Principal | None:
        """Return who holds a token of a share; None when it is unknown, revoked or expired.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        share = await self._by_digest.get(digest_of(token))
        if share is None or not share.is_valid_at(self._now()):
            return None
        return Principal(
            name=name_of(share.id),
            role=Role.VIEWER,
            scope=Scope(study_ids=frozenset(share.study_ids)),
            expires_at=share.expires_at,
            share_id=share.id,
            may_download=share.may_download,
        )

    async def is_valid(self, share_id: str) -> bool:
        """Return whether a share is neither revoked nor expired: so are the URLs minted under it.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        share = await self._by_id.get(share_id)
        return share is not None and share.is_valid_at(self._now())

    async def record_use(self, share_id: str) -> bool:
        """Note that a share is used; written at most once a minute.

        Returns:
            Whether this is its first use within an hour, which belongs into the audit trail.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        if share_id in self._used:
            return False
        self._used[share_id] = True
        now = self._now()
        minute, hour = (now - timedelta(seconds=s) for s in (_USE_SECONDS, _OPENING_SECONDS))
        try:
            if not await self._store.mark(share_id, _LAST_USED_AT, before=minute, now=now):
                return False
            return await self._store.mark(share_id, _OPENED_AT, before=hour, now=now)
        except DatabaseUnavailable:
            self._used.pop(share_id, None)
            raise

    async def aclose(self) -> None:
        """End what still runs."""
        await self._by_digest.aclose()
        await self._by_id.aclose()


def name_of(share_id: str) -> str:
    """Return the name of a share's holder, for the audit trail."""
    return f"share:{share_id}"


def _maker(principal: Principal) -> str | None:
    """Return whose shares a principal may see; None: everybody's."""
    return None if principal.role >= Role.ADMIN else principal.name


@asynccontextmanager
async def open_sharing(
    database: AsyncDatabase[dict[str, Any]], *, max_days: int, page_max_size: int
) -> AsyncIterator[Sharing]:
    """Open the shares; arguments are those of `Sharing`."""
    sharing = Sharing(ShareStore(database), max_days=max_days, page_max_size=page_max_size)
    try:
        yield sharing
    finally:
        await sharing.aclose()
