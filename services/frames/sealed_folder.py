"""A folder of encrypted files, bounded in bytes, that several processes may share; calls block.

    <folder>/frames/<first 2 digits>/<keyed hash of the owner>-<keyed hash of owner and name>

A file is 12 bytes of nonce and what AES-256-GCM makes of its content, bound to owner and name. So
what is cut, damaged, renamed, or written by anybody without the key is no file of ours, and who
finds the folder sees neither a picture nor whose it is.
"""

import os
import re
import secrets
import stat
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from hashlib import blake2b
from math import log2
from pathlib import Path
from time import time
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from services.errors import InvalidInput
from services.files import make_private_folder
from services.frames.signing import FrameUrlKeys

_OWNER_BYTES = 12
_NAME_BYTES = 16
_OWNER_DIGITS = 2 * _OWNER_BYTES
_SHARD_DIGITS = 2
_SHARD = re.compile(r"[0-9a-f]{2}")
_FILE = re.compile(r"[0-9a-f]{24}-[0-9a-f]{32}(\.[0-9a-f]{16}\.draft)?")
_NONCE_BYTES = 12
_SEAL_BYTES = _NONCE_BYTES + 16
"""Nonce and tag. Random nonces of 96 bits suffice for 2^32 files of a key (NIST SP 800-38D 8.3)."""

_BLOCK_BYTES = 4096
"""What a file of one byte takes of most disks."""

_PARTS = 16
"""A process looks at the whole folder again when it has written this part of what it may hold."""

_KEPT_PARTS = 12
"""What a look leaves: with the part that each writes until the next one, four processes together
stay within the limit, and every further one may exceed it by one part."""

_AGE_CLASSES = 64
"""For ages from one to twice as much: 2,000 classes reach from a second to a hundred years."""

_LEAST_AGE_SECONDS = 0.001
"""What is younger is as good as new."""


class _Entry(NamedTuple):
    used_at: float
    size_bytes: int
    path: Path


class SealedFolder:
    """Files by owner and name; the least recently used go first, to about 1% of their age.

    Its methods block, and raise OSError when the disk does not do what is asked. One thread writes
    and removes; any number may read.
    """

    def __init__(self, folder: Path, keys: FrameUrlKeys, *, max_bytes: int) -> None:
        """Make the folder, for its owner only; what is beside it in there is left alone.

        Args:
            folder: Where the folder `frames` is made.
            keys: Of the first, two are derived: one hides names, one encrypts. What was written
                under another key is not found, and goes as the least recently used.
            max_bytes: Most bytes of disk for all files.

        Raises:
            InvalidInput: The folder can't be used, with the reason.
        """
        self._folder = folder / "frames"
        self._name_key = keys.derived("frame-cache-names/v1")[0][1]
        self._cipher = AESGCM(keys.derived("frame-cache-content/v1")[0][1])
        self._kept_bytes = max_bytes * _KEPT_PARTS // _PARTS
        self._part_bytes = max_bytes // _PARTS
        self._written_bytes = self._part_bytes
        try:
            self._make_folder()
        except OSError as exc:
            raise InvalidInput(f"The folder {folder} can't be used: {exc.strerror}.") from exc

    def read(self, owner: str, name: str) -> bytes | None:
        """Return what was written, None when it is not there or is not what we wrote."""
        path, bound = self._path(owner, name)
        try:
            with path.open("rb") as file:
                sealed = memoryview(file.read(self._part_bytes + 1))
            content = self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], bound)
            os.utime(path)
        except FileNotFoundError:
            return None
        except (InvalidTag, ValueError):
            path.unlink(missing_ok=True)
            return None
        return content

    def write(self, owner: str, name: str, content: bytes) -> None:
        """Keep something, whole or not at all; what is larger than a part of the limit is not."""
        size_bytes = _on_disk(len(content) + _SEAL_BYTES)
        if size_bytes > self._part_bytes:
            return
        if self._written_bytes + size_bytes > self._part_bytes:
            self._make_room()
        self._written_bytes += size_bytes
        path, bound = self._path(owner, name)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        # A reader, another process and a crash meet the whole file under its name, or none.
        draft = path.with_name(f"{path.name}.{secrets.token_hex(8)}.draft")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(nonce + self._cipher.encrypt(nonce, content, bound))
            # Another process may have removed all of this owner meanwhile, drafts too.
            with suppress(FileNotFoundError):
                draft.replace(path)
        except BaseException:
            draft.unlink(missing_ok=True)
            raise

    def owners(self) -> set[str]:
        """Return the hashes of all who own a file."""
        return {entry.path.name[:_OWNER_DIGITS] for entry in self._entries()}

    def hash_owner(self, owner: str) -> str:
        """Return what stands for an owner in the names of files; does not block."""
        return blake2b(
            owner.encode(), key=self._name_key, digest_size=_OWNER_BYTES, person=b"owner"
        ).hexdigest()

    def remove(self, owner_hashes: Collection[str]) -> None:
        """Remove all files of owners, given as `hash_owner` does."""
        gone = set(owner_hashes)
        for shard in {owner_hash[:_SHARD_DIGITS] for owner_hash in gone}:
            for entry in _entries_of(self._folder / shard):
                if entry.path.name[:_OWNER_DIGITS] in gone:
                    entry.path.unlink(missing_ok=True)

    def _make_folder(self) -> None:
        make_private_folder(self._folder)
        found = self._folder.lstat()
        # Such as a link that somebody else put there first.
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(0, "it holds a `frames` that belongs to somebody else")
        self._folder.chmod(0o700)

    def _make_room(self) -> None:
        self._make_folder()
        self._written_bytes = 0
        # Two looks, and sums in between: the folder may hold more files than fit into memory.
        now = time()
        held: Counter[int] = Counter()
        for entry in self._entries():
            held[_age_class(now - entry.used_at)] += entry.size_bytes
        going = _oldest(held, held.total() - self._kept_bytes)
        if not going:
            return
        for entry in self._entries():
            age = _age_class(now - entry.used_at)
            if going[age] > 0:
                entry.path.unlink(missing_ok=True)
                going[age] -= entry.size_bytes

    def _entries(self) -> Iterator[_Entry]:
        with os.scandir(self._folder) as shards:
            for shard in shards:
                if _SHARD.fullmatch(shard.name):
                    yield from _entries_of(Path(shard.path))

    def _path(self, owner: str, name: str) -> tuple[Path, bytes]:
        """Return where a file is, and the text that it is bound to."""
        bound = f"{owner}\n{name}".encode()
        owner_hash = self.hash_owner(owner)
        name_hash = blake2b(bound, key=self._name_key, digest_size=_NAME_BYTES, person=b"name")
        shard = self._folder / owner_hash[:_SHARD_DIGITS]
        return shard / f"{owner_hash}-{name_hash.hexdigest()}", bound


def _age_class(age_seconds: float) -> int:
    """Return a number that grows with the age; of each class the ages differ by about 1%."""
    return int(_AGE_CLASSES * log2(max(age_seconds, 0) + _LEAST_AGE_SECONDS))


def _oldest(held_bytes: Mapping[int, int], excess_bytes: int) -> Counter[int]:
    """Tell how many bytes of each age class go, so that the oldest go first.

    Args:
        held_bytes: By age class.
        excess_bytes: That go in all.
    """
    going: Counter[int] = Counter()
    for age in sorted(held_bytes, reverse=True):
        if excess_bytes <= 0:
            break
        going[age] = min(held_bytes[age], excess_bytes)
        excess_bytes -= going[age]
    return going


def _entries_of(shard: Path) -> Iterator[_Entry]:
    """List the files of ours in a folder, and those that are being written."""
    try:
        with os.scandir(shard) as files:
            found = [file for file in files if _FILE.fullmatch(file.name)]
    except FileNotFoundError:
        return
    for file in found:
        try:
            status = file.stat(follow_symlinks=False)
        except FileNotFoundError:
            # Another process removed it.
            continue
        yield _Entry(status.st_mtime, _on_disk(status.st_size), Path(file.path))


def _on_disk(size_bytes: int) -> int:
    return -(-size_bytes // _BLOCK_BYTES) * _BLOCK_BYTES
