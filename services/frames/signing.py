"""Signed URLs of frames and archives: minted without I/O, verified before anything else.

    /frames/v1/<kid>.<exp>.<sig>/<orthancInstanceId>/<revision>/<frameIndex>/<variant>.png
    /archives/v1/<kid>.<exp>.<sig>/<orthancStudyId>.zip

`exp` is 8 lower-case hex digits of epoch seconds. `sig` is base64url without padding of the first
16 bytes of HMAC-SHA256 over purpose, method (HEAD as GET), kid, exp and the object path, joined by
newlines. The object path is what follows the signature's slash. The key is
HKDF-SHA256(master, no salt, info = purpose, 32 bytes); the purpose is `frame-url/v1` or
`archive-url/v1`.

Test vector: master key = bytes 0 to 31, kid `k1`, exp `66a0b228`, frame 7 of instance
`0a1b2c3d-4e5f6071-8293a4b5-c6d7e8f9-0a1b2c3d`, revision `deadbeef`, variant `w40x400-s256`:

    /frames/v1/k1.66a0b228.zHTjwNdaXd1Tu24XeDaBnQ/0a1b2c3d-4e5f6071-8293a4b5-c6d7e8f9-0a1b2c3d\
/deadbeef/7/w40x400-s256.png
"""

import base64
import binascii
import hmac
import os
import re
import secrets
import tempfile
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Self

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from services.errors import FrameUrlExpired, FrameUrlInvalid, InvalidInput
from services.frames.variant import FrameVariant
from services.orthanc.identifiers import is_orthanc_id

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


EXPIRY_STEP_SECONDS = 300
"""The same frame has the same URL for so long, so that the browser's cache works."""

CLOCK_SKEW_SECONDS = 30
"""How far the clocks of two of our processes may be apart."""

_SIGNATURE_BYTES = 16
_SIGNATURE_CHARACTERS = 22
_LATEST_EXPIRY = 0xFFFFFFFF
_EXPIRY = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class SignedPath:
    """A path that works until `expires_at` (UTC)."""

    path: str
    expires_at: datetime


class PathSigner:
    """Signs and verifies object paths.

    Args:
        keys: The first signs, all verify.
        purpose: Derives the keys and is signed too.
        prefix: What the paths begin with, without a slash at its end.
        valid_seconds: Shortest validity.
    """

    def __init__(self, keys: FrameUrlKeys, purpose: str, prefix: str, valid_seconds: int) -> None:
        derived = keys.derived(purpose)
        self._prefix = f"{prefix}/"
        self._valid_seconds = valid_seconds
        self._purpose = purpose
        self._key_id = derived[0][0]
        self._macs = {key_id: hmac.new(key, digestmod="sha256") for key_id, key in derived}
        # An unknown key id costs what a known one costs, and matches nothing.
        self._no_mac = hmac.new(secrets.token_bytes(32), digestmod="sha256")
        self._step = _Step(0, "", datetime.fromtimestamp(0, UTC), self._no_mac)

    def mint(self, target: str, now: float) -> SignedPath:
        """Sign an object path; `now` in epoch seconds."""
        step = self._step_at(now)
        signature = _signature(step.mac.copy(), target)
        return SignedPath(f"{step.head}{signature}/{target}", step.expires_at)

    def verify(self, path: bytes, method: str) -> tuple[str, int]:
        """Check the signature of a path as it was received; its time is not looked at.

        Args:
            path: Raw path.
            method: `GET` or `HEAD`, which counts as GET.

        Returns:
            The object path and its expiry in epoch seconds.

        Raises:
            FrameUrlInvalid: Nobody signed this.
        """
        key_id, expiry, given, target = self._split(path)
        mac = _started(self._macs.get(key_id, self._no_mac), self._purpose, method, key_id, expiry)
        # Comparing the spellings also refuses every other base64 text of the same bytes.
        if not hmac.compare_digest(_signature(mac, target), given):
            raise FrameUrlInvalid(detail="signature")
        return target, int(expiry, 16)

    def check_time(self, expires: int, now: float) -> None:
        """Check the expiry of a path whose signature is right; both in epoch seconds.

        Raises:
            FrameUrlInvalid: We sign nothing for so long.
            FrameUrlExpired: It is too old.
        """
        longest = self._valid_seconds + EXPIRY_STEP_SECONDS + CLOCK_SKEW_SECONDS
        if expires > now + longest:
            raise FrameUrlInvalid(detail="too far in the future")
        if now >= expires + CLOCK_SKEW_SECONDS:
            raise FrameUrlExpired

    def _split(self, path: bytes) -> tuple[str, str, str, str]:
        try:
            text = path.decode("ascii")
        except UnicodeDecodeError as exc:
            raise FrameUrlInvalid(detail="malformed") from exc
        ticket, _, target = text[len(self._prefix) :].partition("/")
        parts = ticket.split(".")
        if not text.startswith(self._prefix) or len(parts) != 3 or not target:  # noqa: PLR2004  # kid.exp.sig
            raise FrameUrlInvalid(detail="malformed")
        key_id, expiry, given = parts
        if not _EXPIRY.fullmatch(expiry) or len(given) != _SIGNATURE_CHARACTERS:
            raise FrameUrlInvalid(detail="malformed")
        return key_id, expiry, given, target

    def _step_at(self, now: float) -> "_Step":
        """Return what all paths minted in one 5-minute step share."""
        expires = -int(-(now + self._valid_seconds) // EXPIRY_STEP_SECONDS) * EXPIRY_STEP_SECONDS
        if expires != self._step.expires:
            expiry = f"{min(expires, _LATEST_EXPIRY):08x}"
            self._step = _Step(
                expires,
                f"{self._prefix}{self._key_id}.{expiry}.",
                datetime.fromtimestamp(expires, UTC),
                _started(self._macs[self._key_id], self._purpose, "GET", self._key_id, expiry),
            )
        return self._step


@dataclass(frozen=True, slots=True)
class _Step:
    """One expiry: the head of its paths up to the signature, and the HMAC begun for them."""

    expires: int
    head: str
    expires_at: datetime
    mac: hmac.HMAC


def _started(mac: hmac.HMAC, purpose: str, method: str, key_id: str, expiry: str) -> hmac.HMAC:
    begun = mac.copy()
    method = "GET" if method == "HEAD" else method
    begun.update(f"{purpose}\n{method}\n{key_id}\n{expiry}\n".encode())
    return begun


def _signature(mac: hmac.HMAC, target: str) -> str:
    """Take the target in, and spell the signature; `mac` is used up."""
    mac.update(target.encode())
    return urlsafe_b64encode(mac.digest()[:_SIGNATURE_BYTES])[:_SIGNATURE_CHARACTERS].decode()


FRAME_PURPOSE = "frame-url/v1"
ARCHIVE_PURPOSE = "archive-url/v1"

_DEFAULT_VARIANT = FrameVariant()
_REVISION = re.compile(r"[0-9a-f]{8}")
_VERIFIED = 1024
"""Paths whose signature is checked once: those of the stacks that are on somebody's screens. They
take less than a megabyte."""
_FRAME_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


@dataclass(frozen=True, slots=True)
class FrameReference:
    """What a verified frame URL points to.

    Attributes:
        frame_index: 0-based within the instance.
        expires: Epoch seconds.
    """

    instance_id: str
    revision: str
    frame_index: int
    variant: FrameVariant
    expires: int


@dataclass(frozen=True, slots=True)
class ArchiveReference:
    """What a verified archive URL points to; `expires` in epoch seconds."""

    study_id: str
    expires: int


class FrameUrlSigner:
    """Mints and verifies signed paths.

    Args:
        keys: The first signs, all verify.
        valid_seconds: Shortest validity; rounding up to 5-minute steps makes it up to
            5 minutes longer.
    """

    def __init__(self, keys: FrameUrlKeys, *, valid_seconds: int = 900) -> None:
        self._frames = PathSigner(keys, FRAME_PURPOSE, "/frames/v1", valid_seconds)
        self._archives = PathSigner(keys, ARCHIVE_PURPOSE, "/archives/v1", valid_seconds)
        # What is refused is an exception, which is never kept: nobody else fills this.
        self._verified = lru_cache(maxsize=_VERIFIED)(self._verify_frame)

    def frame_path(
        self,
        instance_id: str,
        revision: str,
        frame_index: int,
        variant: FrameVariant = _DEFAULT_VARIANT,
        *,
        now: float,
    ) -> SignedPath:
        """Mint the path of a frame.

        Args:
            instance_id: Orthanc's identifier of the instance.
            revision: 8 lower-case hex digits.
            frame_index: 0-based within the instance.
            variant: How to show it.
            now: Epoch seconds.
        """
        # Most URLs of a tree are of the default variant: its spelling costs nothing.
        text = "default" if variant is _DEFAULT_VARIANT else variant.text
        return self._frames.mint(f"{instance_id}/{revision}/{frame_index}/{text}.png", now)

    def archive_path(self, study_id: str, *, now: float) -> SignedPath:
        """Mint the path of a study's archive; `now` in epoch seconds."""
        return self._archives.mint(f"{study_id}.zip", now)

    def verify_frame(self, path: bytes, method: str, *, now: float) -> FrameReference:
        """Check a path as it was received and read it.

        Args:
            path: Raw path, neither unescaped nor normalised.
            method: `GET` or `HEAD`.
            now: Epoch seconds.

        Raises:
            FrameUrlInvalid: Nobody signed this.
            FrameUrlExpired: It was signed by us and is too old.
        """
        reference = self._verified(path, method)
        self._frames.check_time(reference.expires, now)
        return reference

    def _verify_frame(self, path: bytes, method: str) -> FrameReference:
        target, expires = self._frames.verify(path, method)
        return _frame_reference(target, expires)

    def verify_archive(self, path: bytes, method: str, *, now: float) -> ArchiveReference:
        """Check the path of an archive; arguments and errors are those of `verify_frame`."""
        target, expires = self._archives.verify(path, method)
        self._archives.check_time(expires, now)
        study_id = target.removesuffix(".zip")
        if target == study_id or not is_orthanc_id(study_id):
            raise FrameUrlInvalid(detail="malformed")
        return ArchiveReference(study_id, expires)


def _frame_reference(target: str, expires: int) -> FrameReference:
    """Read an object path that we signed; by position, and only as we would write it."""
    parts = target.split("/")
    if len(parts) != 4 or not parts[3].endswith(".png"):  # noqa: PLR2004  # instance, revision, index, variant
        raise FrameUrlInvalid(detail="malformed")
    instance_id, revision, index, file_name = parts
    if not (
        is_orthanc_id(instance_id)
        and _REVISION.fullmatch(revision)
        and _FRAME_INDEX.fullmatch(index)
    ):
        raise FrameUrlInvalid(detail="malformed")
    try:
        variant = FrameVariant.parse(file_name.removesuffix(".png"))
    except InvalidInput as exc:
        raise FrameUrlInvalid(detail="malformed") from exc
    return FrameReference(instance_id, revision, int(index), variant, expires)
