"""The file of tokens of earlier releases, imported into MongoDB once."""

import json
import logging
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from models.token import TokenDocument
from services.auth.roles import Role
from services.auth.tokens import TokenStore, is_token_name
from services.errors import Error
from services.tasks import finish_in_thread

_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)

_log = logging.getLogger(__name__)


class TokensFileError(Error):
    """The file of tokens can't be used."""

    code = "TOKENS_FILE"


async def take_over_tokens_file(path: Path, store: TokenStore) -> None:
    """Copy the tokens of a file into MongoDB and rename the file; the log says so.

    A name that was used in MongoDB before is left out, so that a file that can't be renamed, or
    that comes back from a backup, brings no revoked token back.

    Args:
        path: The file; nothing is done when it does not exist.
        store: The tokens in MongoDB.

    Raises:
        TokensFileError: The file can't be read or is broken; the message names it.
        DatabaseUnavailable: MongoDB does not answer.
    """
    tokens = await finish_in_thread(_read, path)
    if tokens is None:
        return
    added = await store.add(tokens)
    old = path.with_name(f"{path.name}.taken-over")
    try:
        await finish_in_thread(path.replace, old)
    except OSError as exc:
        kept = f"it can't be renamed ({exc.strerror}): delete it"
    else:
        kept = f"it is now called {old.name}"
    _log.warning(
        "Tokens are in MongoDB now: %d of %d tokens of the file %s were imported. The file is "
        "not read again; %s.",
        len(added),
        len(tokens),
        path,
        kept,
    )


def parse_tokens(text: str) -> tuple[TokenDocument, ...]:
    """Read the content of a file of tokens.

    Raises:
        TokensFileError: It is no JSON, an entry is wrong, or a name or a token is there twice.
    """
    try:
        entries = json.loads(text)["tokens"]
        tokens = tuple(_parse_entry(entry) for entry in entries)
    except KeyError as exc:
        raise TokensFileError(f"not a list of tokens: {exc} is missing") from exc
    except (ValueError, TypeError, RecursionError) as exc:
        raise TokensFileError(f"not a list of tokens: {exc}") from exc
    if len({token.id for token in tokens}) < len(tokens):
        raise TokensFileError("two tokens have the same name")
    if len({token.sha256 for token in tokens}) < len(tokens):
        raise TokensFileError("two entries have the same hash")
    return tokens


def _read(path: Path) -> tuple[TokenDocument, ...] | None:
    try:
        return parse_tokens(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, UnicodeDecodeError) as exc:
        raise TokensFileError(f"The file of tokens {path} can't be read: {exc}") from exc
    except TokensFileError as exc:
        raise TokensFileError(f"The file of tokens {path} is broken: {exc.message}") from exc


def _parse_entry(entry: Mapping[str, Any]) -> TokenDocument:
    role, digest = str(entry["role"]), str(entry["sha256"])
    if role.upper() not in Role.__members__:
        raise ValueError(f'"{role}" is not a role (viewer, uploader, admin)')
    if not _DIGEST.fullmatch(digest):
        raise ValueError("a sha256 is not 64 lower-case hex digits")
    if not is_token_name(str(entry["name"])):
        raise ValueError("a name is empty, longer than 64 characters or has invalid characters")
    expires = entry.get("expires")
    token: TokenDocument = TokenDocument.model_construct(
        id=str(entry["name"]),
        role=role.lower(),
        sha256=digest,
        created_at=_parse_time(entry["created"]),
        expires_at=None if expires is None else _parse_time(expires),
    )
    return token


def _parse_time(text: str) -> datetime:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError("a time has no time zone")
    return time
