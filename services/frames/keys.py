"""The keys that sign URLs: parsed, derived, made and kept."""

import base64
import binascii
import os
import re
import secrets
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.errors import InvalidInput

KEY_FILE_NAME = "frame-url.keys"
_KEY_ID = re.compile(r"[A-Za-z0-9_-]{1,16}")
_GENERATED_KEY_ID = "k1"

_MINIMUM_KEY_BYTES = 32
"""HMAC-SHA256 gains nothing from keys longer than its output and loses with shorter ones."""


@dataclass(frozen=True, slots=True, repr=False)
class FrameUrlKeys:
    """Master keys by key id, in order: the first signs, all verify.

    Attributes:
        masters: (key id, master key of 32 bytes or more).
    """

    masters: tuple[tuple[str, bytes], ...]

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `kid:base64url,kid2:base64url`.

        Args:
            text: Pairs, comma-separated. A key id has 1 to 16 letters, digits, `_` or `-`.

        Raises:
            InvalidInput: Says which pair is wrong and why, never the key.
        """
        pairs = tuple(_parse_pair(pair.strip()) for pair in text.strip().split(","))
        if len({key_id for key_id, _ in pairs}) != len(pairs):
            raise InvalidInput("FRAME_URL_KEYS: every key id is used once.")
        return cls(pairs)

    def derived(self, purpose: str) -> tuple[tuple[str, bytes], ...]:
        """Derive one 32-byte key per master for one purpose (HKDF-SHA256, RFC 5869)."""
        return tuple((key_id, _derive(master, purpose)) for key_id, master in self.masters)


def generate_key() -> str:
    """Make a new pair for FRAME_URL_KEYS: a random key id and 32 random bytes."""
    return _spell(f"k{secrets.token_hex(3)}", secrets.token_bytes(_MINIMUM_KEY_BYTES))


def load_or_create_keys(data_dir: Path) -> FrameUrlKeys:
    """Read the key file of a data directory; the first call makes it, readable by its owner only.

    Of several processes that start at once one makes the file and all read the same.

    Args:
        data_dir: The folder; made when it is not there.

    Raises:
        InvalidInput: The file holds no keys.
    """
    path = data_dir / KEY_FILE_NAME
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        text = _spell(_GENERATED_KEY_ID, secrets.token_bytes(_MINIMUM_KEY_BYTES))
        _create_once(path, text)
    return FrameUrlKeys.parse(path.read_text(encoding="ascii"))


def _create_once(path: Path, text: str) -> None:
    """Write a complete file under its name, unless the name is taken already."""
    # mkstemp makes the file with mode 0600.
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(text + "\n")
            file.flush()
            os.fsync(file.fileno())
        # A hard link fails where a rename would replace a key that another process uses already.
        os.link(temporary, path)
    except FileExistsError:
        return
    finally:
        Path(temporary).unlink()


def _parse_pair(pair: str) -> tuple[str, bytes]:
    key_id, separator, encoded = pair.partition(":")
    if not separator or not _KEY_ID.fullmatch(key_id):
        raise InvalidInput(
            "FRAME_URL_KEYS: write kid:key pairs, kid of 1 to 16 letters, digits, _ or -."
        )
    try:
        master = base64.b64decode(encoded + "=" * (-len(encoded) % 4), b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise InvalidInput(f"FRAME_URL_KEYS: key {key_id} is not base64url.") from exc
    if len(master) < _MINIMUM_KEY_BYTES:
        raise InvalidInput(
            f"FRAME_URL_KEYS: key {key_id} has {len(master)} bytes; "
            f"{_MINIMUM_KEY_BYTES} are the minimum. Make one with: orthanc-graphql key"
        )
    return key_id, master


def _derive(master: bytes, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose.encode()).derive(master)


def _spell(key_id: str, master: bytes) -> str:
    return f"{key_id}:{base64.urlsafe_b64encode(master).rstrip(b'=').decode()}"
