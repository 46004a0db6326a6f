"""Files that only their owner may read: generated passwords, configurations, addresses."""

import os
import secrets
from pathlib import Path

_PASSWORD_BYTES = 32
"""256 bits: beyond guessing, and short enough for every configuration format."""


def make_private_folder(folder: Path) -> None:
    """Create a folder with its parents; only the owner may enter (mode 0700)."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_private(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all.

    The text goes to a neighbour first that is renamed, so that a reader or a crash never meets
    half of it, and it is private before the first byte is in it.
    """
    draft = path.with_name(f".{path.name}.{os.getpid()}.draft")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def keep_password(path: Path) -> str:
    """Read the password of a file, generated there the first time.

    Returns:
        64 hexadecimal digits: they need no escaping in a URL, in JSON or in a key file of mongod.
    """
    if not path.exists():
        write_private(path, secrets.token_hex(_PASSWORD_BYTES))
    return path.read_text(encoding="utf-8").strip()
