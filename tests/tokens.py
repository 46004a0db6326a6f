"""Tokens of the tests: in memory, in a file of an earlier release, or in the database."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from models.token import TokenDocument
from services.auth.roles import Role
from services.auth.tokens import TokenCache, digest_of
from services.settings import Settings

_CREATED = datetime(2026, 1, 2, tzinfo=UTC)


def made_token(
    name: str, role: Role = Role.VIEWER, *, lifetime: timedelta | None = None
) -> tuple[TokenDocument, str]:
    """Make a token of 2 January 2026; answers what is stored, and the token."""
    secret = f"ogql_secret of {name}"
    document = TokenDocument.model_construct(
        id=name,
        role=role.name.lower(),
        sha256=digest_of(secret),
        created_at=_CREATED,
        expires_at=None if lifetime is None else _CREATED + lifetime,
    )
    return document, secret


def cache_of(*tokens: TokenDocument) -> TokenCache:
    """Hold tokens in memory; they are read at the first use."""

    async def read_all() -> Sequence[TokenDocument]:
        return tokens

    return TokenCache(read_all)


async def read_cache_of(*tokens: TokenDocument) -> TokenCache:
    """Hold tokens in memory, read already."""
    cache = cache_of(*tokens)
    await cache.refresh()
    return cache


def write_tokens_file(path: Path, roles: Mapping[str, Role]) -> dict[str, str]:
    """Write a file as earlier releases did; a server takes its tokens over.

    Returns:
        The tokens by their names.
    """
    made = {name: made_token(name, role) for name, role in roles.items()}
    entries = [
        {
            "name": document.id,
            "role": document.role,
            "created": document.created_at.isoformat(timespec="seconds"),
            "expires": None,
            "sha256": document.sha256,
        }
        for document, _ in made.values()
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"tokens": entries}, indent=2) + "\n", encoding="utf-8")
    return {name: secret for name, (_, secret) in made.items()}


def give_tokens(settings: Settings, **roles: Role) -> dict[str, str]:
    """Give the next server with these settings tokens; answers them by their names."""
    return write_tokens_file(settings.tokens_path, roles)
