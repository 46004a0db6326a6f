"""Finds credentials that were withdrawn, so that jobs that were started with them are ended."""

from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from pymongo.asynchronous.database import AsyncDatabase

from models import ShareDocument, TokenDocument
from models.stored import stored_name
from services.database import translated_database_faults

_CREATED_AT = stored_name(TokenDocument.created_at)
_EXPIRES_AT = stored_name(ShareDocument.expires_at)
_REVOKED_AT = stored_name(TokenDocument.revoked_at)

_SHARE = "share:"
"""Prefix of the principals of shares."""

_ALWAYS = datetime.max.replace(tzinfo=UTC)

_CLOCKS_DIFFER = timedelta(seconds=10)
"""A token is made on another machine than where it is used: at most as far ahead."""


class Withdrawals:
    """Finds principals whose access was withdrawn.

    Who comes by OpenID is not known here: their sessions end at the provider. A token that expires
    ends no work, because nobody has withdrawn it.

    Args:
        database: Where tokens and shares are.
        now: The clock, with time zone.
    """

    def __init__(
        self,
        database: AsyncDatabase[dict[str, Any]],
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._tokens = database[TokenDocument.Settings.name]
        self._shares = database[ShareDocument.Settings.name]
        self._now = now

    async def find(self, names: Collection[str]) -> dict[str, datetime]:
        """Find out whose access was withdrawn.

        Args:
            names: Of principals, as in `Principal.name`.

        Returns:
            By name, until when it was given: what was begun before ends. A token of a name that was
            given again stands for another one.

        Raises:
            DatabaseUnavailable: MongoDB does not answer.
        """
        withdrawn: dict[str, datetime] = {}
        shares = [one.removeprefix(_SHARE) for one in names if one.startswith(_SHARE)]
        has_ended = {"$or": [{_REVOKED_AT: {"$ne": None}}, {_EXPIRES_AT: {"$lte": self._now()}}]}
        with translated_database_faults():
            async for token in self._tokens.find({"_id": {"$in": sorted(names)}}):
                is_revoked = token.get(_REVOKED_AT) is not None
                until = _ALWAYS if is_revoked else token[_CREATED_AT] - _CLOCKS_DIFFER
                withdrawn[token["_id"]] = until
            async for share in self._shares.find(
                {"_id": {"$in": sorted(shares)}, **has_ended}, {"_id": 1}
            ):
                withdrawn[_SHARE + share["_id"]] = _ALWAYS
        return withdrawn
