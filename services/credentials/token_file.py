"""The file of tokens on the disk: changed by commands, followed by a running server."""

import asyncio
import fcntl
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from services.access import Principal
from services.credentials.tokens import (
    Token,
    TokensFileError,
    TokensFileMissing,
    digest_of,
    parse_tokens,
    render_tokens,
    tokens_by_digest,
)
from services.embedded.private_files import make_private_folder, write_private

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
