"""Static bearer tokens as hashes: made, read, written, looked up. Pure; the clock is an argument.

A token is 256 random bits, so one round of SHA-256 is enough: slow hashes protect what people
choose, and nobody can try 2**256 values. A fast hash also keeps a flood of wrong tokens cheap,
which is why failures need no delay and no counter either.
"""

import asyncio
import fcntl
import hashlib
import json
import logging
import os
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from services.auth.roles import LOCAL_ADMIN, Principal, Role
from services.errors import Error, InvalidInput, NotFound
from services.files import make_private_folder, write_private

TOKEN_PREFIX = "ogql_"  # noqa: S105  # what scanners for leaked secrets can look for
_TOKEN_BYTES = 32
_NAME = re.compile(r"[\w.@-](?:[\w.@ -]{0,62}[\w.@-])?", re.ASCII)
"""1 to 64 characters; no colon, which marks principals of the OpenID provider."""
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


class TokensFileError(Error):
    """The file of tokens can't be used."""

    code = "TOKENS_FILE"


class TokensFileMissing(TokensFileError):
    """There is no file of tokens."""


@dataclass(frozen=True, slots=True)
class Token:
    """One entry of the file.

    Attributes:
        name: Unique in the file; the principal's name in the audit trail.
        role: What its holder may do.
        created: When it was made, with time zone.
        expires: First moment at which it is no longer accepted; None: never.
        sha256: SHA-256 of the token's UTF-8 bytes, 64 lower-case hex digits.
    """

    name: str
    role: Role
    created: datetime
    expires: datetime | None
    sha256: str

    def is_valid_at(self, now: datetime) -> bool:
        """Tell whether it has not expired."""
        return self.expires is None or now < self.expires

    @property
    def principal(self) -> Principal:
        """Who its holder is."""
        return Principal(name=self.name, role=self.role)


def digest_of(token: str) -> str:
    """Return the SHA-256 of a token, 64 lower-case hex digits."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).hexdigest()


def issue_token(
    tokens: Sequence[Token],
    *,
    name: str,
    role: Role,
    now: datetime,
    lifetime: timedelta | None = None,
) -> tuple[tuple[Token, ...], str]:
    """Make a token.

    Args:
        tokens: Those that are there.
        name: A name that none of them has.
        role: What its holder may do.
        now: The time, with time zone.
        lifetime: How long it is accepted; None: until it is revoked.

    Returns:
        All tokens with the new one last, and the token itself: it can't be found out again.

    Raises:
        InvalidInput: The name is taken or has characters that it must not have.
    """
    if not _NAME.fullmatch(name) or name == LOCAL_ADMIN.name:
        raise InvalidInput(
            "A token's name has 1 to 64 letters, digits, spaces or . _ @ - and is not "
            f'"{LOCAL_ADMIN.name}".'
        )
    if any(token.name == name for token in tokens):
        raise InvalidInput(f'There is a token "{name}" already. Revoke it or take another name.')
    secret = TOKEN_PREFIX + secrets.token_urlsafe(_TOKEN_BYTES)
    expires = None if lifetime is None else now + lifetime
    token = Token(name=name, role=role, created=now, expires=expires, sha256=digest_of(secret))
    return (*tokens, token), secret


def revoke_token(tokens: Sequence[Token], name: str) -> tuple[Token, ...]:
    """Leave one token out.

    Raises:
        NotFound: No token has this name.
    """
    kept = tuple(token for token in tokens if token.name != name)
    if len(kept) == len(tokens):
        raise NotFound(f'There is no token "{name}".')
    return kept


def tokens_by_digest(tokens: Sequence[Token]) -> Mapping[str, Token]:
    """Index tokens for the lookup.

    The key is a hash of what the caller sent: how long the search takes says something about the
    hash and nothing about any token, so it needs no constant-time comparison.
    """
    return {token.sha256: token for token in tokens}


def parse_tokens(text: str) -> tuple[Token, ...]:
    """Read the file of tokens.

    Raises:
        TokensFileError: It is no JSON, an entry is wrong, or a name or a token is there twice.
    """
    try:
        entries = json.loads(text)["tokens"]
        tokens = tuple(_parse_entry(entry) for entry in entries)
    except (ValueError, KeyError, TypeError, RecursionError) as exc:
        raise TokensFileError(f"not a list of tokens: {_reason(exc)}") from exc
    if len({token.name for token in tokens}) < len(tokens):
        raise TokensFileError("two tokens have the same name")
    if len({token.sha256 for token in tokens}) < len(tokens):
        raise TokensFileError("two entries have the same hash")
    return tokens


def render_tokens(tokens: Sequence[Token]) -> str:
    """Write the file of tokens; `parse_tokens` reads it."""
    return json.dumps({"tokens": [_render_entry(token) for token in tokens]}, indent=2) + "\n"


def _parse_entry(entry: Mapping[str, Any]) -> Token:
    role, digest = str(entry["role"]), str(entry["sha256"])
    if role.upper() not in Role.__members__:
        raise ValueError(f'"{role}" is no role (viewer, uploader, admin)')
    if not _DIGEST.fullmatch(digest):
        raise ValueError("a sha256 is not 64 lower-case hex digits")
    if not _NAME.fullmatch(str(entry["name"])) or entry["name"] == LOCAL_ADMIN.name:
        raise ValueError("a name is empty, longer than 64 characters or has others than allowed")
    expires = entry.get("expires")
    return Token(
        name=entry["name"],
        role=Role[role.upper()],
        created=_parse_time(entry["created"]),
        expires=None if expires is None else _parse_time(expires),
        sha256=digest,
    )


def _parse_time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time has no time zone")
    return time


def _render_entry(token: Token) -> dict[str, str | None]:
    return {
        "name": token.name,
        "role": token.role.name.lower(),
        "created": token.created.isoformat(timespec="seconds"),
        "expires": token.expires.isoformat(timespec="seconds") if token.expires else None,
        "sha256": token.sha256,
    }


def _reason(exc: Exception) -> str:
    if isinstance(exc, KeyError):
        return f"{exc} is missing"
    return str(exc)


_log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
"""How long a revoked token can still be accepted by a running server."""

_Fingerprint = tuple[int, ...] | None

_UNKNOWN: _Fingerprint = ()
"""A file that may be there: its folder can't be looked into."""


def read_tokens(path: Path) -> tuple[Token, ...]:
    """Read the file of tokens. Blocks.

    Raises:
        TokensFileMissing: It is not there.
        TokensFileError: It can't be read or makes no sense; the message names it.
    """
    try:
        return parse_tokens(path.read_text(encoding="utf-8"))
    except FileNotFoundError as exc:
        raise TokensFileMissing(
            f"The file of tokens {path} does not exist. Make the first token with: "
            "orthanc-graphql token create"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise TokensFileError(f"The file of tokens {path} can't be read: {exc}") from exc
    except TokensFileError as exc:
        raise TokensFileError(f"The file of tokens {path} is broken: {exc.message}") from exc


@contextmanager
def changed_tokens(path: Path) -> Iterator["TokenChange"]:
    """Change the file of tokens as the only one who does. Blocks.

    The file is replaced in one step when the block ends without an exception, mode 0600.

    Raises:
        TokensFileError: The file that is there makes no sense; it is left alone.
    """
    make_private_folder(path.parent)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # The file itself is replaced, so a lock on it would guard the old one.
        fcntl.flock(folder, fcntl.LOCK_EX)
        change = TokenChange(read_tokens(path) if path.exists() else ())
        yield change
        write_private(path, render_tokens(change.tokens))
    finally:
        os.close(folder)


class TokenChange:
    """What `changed_tokens` reads and will write."""

    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tuple(tokens)


class TokenFile:
    """The tokens that a running server accepts; follows the file without being restarted."""

    def __init__(self, path: Path, *, is_required: bool) -> None:
        """Read the file. Blocks.

        Args:
            path: The file.
            is_required: Whether a missing file is an error, as it is when a setting names it.

        Raises:
            TokensFileError: It makes no sense, or is missing though required.
        """
        self._path = path
        self._seen = _fingerprint(path)
        self._complained_of: _Fingerprint = None
        self._by_digest: Mapping[str, Token] | None = None
        if is_required or self._seen is not None:
            self._by_digest = tokens_by_digest(read_tokens(path))

    @property
    def is_configured(self) -> bool:
        """Whether there is, or was, a file: then a credential is needed, even if it lists none."""
        return self._by_digest is not None

    def find(self, token: str, now: datetime) -> Principal | None:
        """Return who holds a token; None when nobody does or it has expired."""
        entry = (self._by_digest or {}).get(digest_of(token))
        return entry.principal if entry is not None and entry.is_valid_at(now) else None

    async def follow(self) -> None:
        """Take changes over until cancelled; a broken file leaves the last good one in force."""
        while True:
            await asyncio.sleep(_POLL_SECONDS)
            await asyncio.to_thread(self.refresh)

    def refresh(self) -> None:
        """Read the file again when it has changed. Blocks.

        A file that is gone changes nothing: the server must not open because of it. One that
        can't be read is tried again each time; a server that was open closes because of it.
        """
        found = _fingerprint(self._path)
        if found is None or found == self._seen:
            return
        try:
            self._by_digest = tokens_by_digest(read_tokens(self._path))
        except TokensFileError as exc:
            self._by_digest = self._by_digest or {}
            if found != self._complained_of:
                _log.error("%s The tokens of before stay valid.", exc.message)
            self._complained_of = found
        else:
            self._seen = found
            _log.info("The file of tokens has changed: %d tokens", len(self._by_digest))


def _fingerprint(path: Path) -> _Fingerprint:
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError:
        return _UNKNOWN
    return stat.st_mtime_ns, stat.st_ctime_ns, stat.st_size, stat.st_ino
