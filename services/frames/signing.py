"""Signed URLs of frames and archives: minted without I/O, verified before anything else.

    /frames/v2/<kid>.<exp>.<sig>/<orthancInstanceId>/<revision>/<frameIndex>/<variant>.<png|jpg>
    /archives/v2/<kid>.<exp>.<sig>/<orthancStudyId>/<revision>.zip
    /archives/v2/series/<kid>.<exp>.<sig>/<orthancSeriesId>/<orthancStudyId>/<revision>.zip

The signature is of the object, not of the rendering: frame and variant follow in a bounded,
canonical grammar (`services.frames.variant`), and a client may fill them in itself.

`exp` is 8 lower-case hex digits of epoch seconds. `sig` is base64url without padding of the first
16 bytes of HMAC-SHA256 over the purpose, kid, exp, the identifier and the revision, joined by
newlines. The key is HKDF-SHA256(master, no salt, info = purpose, 32 bytes); the purpose is
`frame-url/v2`, `archive-url/v2` or `series-archive-url/v2`. The revision of a series is
`<orthancStudyId>/<revision of the study>`. What is minted under a share expires no later than the
share. The share's identifier, 16 lower-case hex digits, is appended to the text that is signed and,
after a dot, to the first segment of the path: `<kid>.<exp>.<sig>.<share>`.

Test vector: master key = bytes 0 to 31, kid `k1`, exp `66a0b228`, instance
`0a1b2c3d-4e5f6071-8293a4b5-c6d7e8f9-0a1b2c3d`, revision `deadbeef`, frame 7, variant
`w40x400-s256`:

    /frames/v2/k1.66a0b228._Dp5k0G9LISlNhMGJYqC7g/0a1b2c3d-4e5f6071-8293a4b5-c6d7e8f9-0a1b2c3d\
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
from services.files import read_private
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
        PrivateFileUnusable: The file is damaged, or others may read it.
    """
    path = data_dir / KEY_FILE_NAME
    if not path.exists():
        data_dir.mkdir(parents=True, exist_ok=True)
        text = _spell(_GENERATED_KEY_ID, secrets.token_bytes(_MINIMUM_KEY_BYTES))
        _create_once(path, text)
    return FrameUrlKeys.parse(read_private(path))


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


FRAME_PURPOSE = "frame-url/v2"
ARCHIVE_PURPOSE = "archive-url/v2"
SERIES_ARCHIVE_PURPOSE = "series-archive-url/v2"

VALID_SECONDS = 1800
"""Shortest validity of a URL unless set: longer than one reads a study without asking again."""

CLOCK_SKEW_SECONDS = 30
"""How far the clocks of two of our processes may be apart."""

_SHORTEST_STEP_SECONDS = 300
_STEPS_OF_VALIDITY = 3
_SIGNATURE_BYTES = 16
_SIGNATURE_CHARACTERS = 22
_LATEST_EXPIRY = 0xFFFFFFFF
_EXPIRY = re.compile(r"[0-9a-f]{8}")
_REVISION = re.compile(r"[0-9a-f]{8}")
_SHARE_ID = re.compile(r"[0-9a-f]{16}")
_STUDY_REVISION = re.compile(r"[0-9a-f]{8,16}")
_FRAME_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")

_VERIFIED = 1024
"""Paths whose signature is verified once and remembered: enough for the stacks that are on screens
now. They take less than a megabyte."""

_DEFAULT_VARIANT = FrameVariant()

_SERIES_ARCHIVES = "/archives/v2/series"


@dataclass(frozen=True, slots=True)
class ShareGrant:
    """The share that paths are minted under: they end with it.

    Attributes:
        share_id: 16 lower-case hex digits.
        expires: Epoch seconds.
    """

    share_id: str
    expires: int


@dataclass(frozen=True, slots=True)
class Ticket:
    """What the signature of a path says.

    Attributes:
        expires: Epoch seconds.
        share_id: The share that it was minted under, None for none.
    """

    expires: int
    share_id: str | None


@dataclass(frozen=True, slots=True)
class SignedPath:
    """A path that works until `expires_at` (UTC)."""

    path: str
    expires_at: datetime


class ObjectSigner:
    """Signs and verifies objects, each named by an identifier and a revision.

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
        self._step_seconds = expiry_step_seconds(valid_seconds)
        self._purpose = purpose
        self._key_id = derived[0][0]
        self._macs = {key_id: hmac.new(key, digestmod="sha256") for key_id, key in derived}
        # An unknown key id costs what a known one costs, and matches nothing.
        self._no_mac = hmac.new(secrets.token_bytes(32), digestmod="sha256")
        self._step = _Step(0, "", datetime.fromtimestamp(0, UTC), self._no_mac)
        self._granted: tuple[ShareGrant | None, _Step] = (None, self._step)

    def mint(
        self, object_id: str, revision: str, now: float, grant: ShareGrant | None = None
    ) -> SignedPath:
        """Sign an object; `now` in epoch seconds.

        Args:
            object_id: Orthanc's identifier.
            revision: Of the object.
            now: Epoch seconds.
            grant: The share that it is minted under.

        Returns:
            The path `<prefix>/<kid>.<exp>.<sig>/<object_id>/<revision>`, without a slash at its
            end.
        """
        step = self._step_at(now, grant)
        if grant is None:
            signature = _signature(step.mac.copy(), object_id, revision)
        else:
            signed = _signature(step.mac.copy(), object_id, revision, grant.share_id)
            signature = f"{signed}.{grant.share_id}"
        return SignedPath(f"{step.head}{signature}/{object_id}/{revision}", step.expires_at)

    def expires_at(self, now: float, grant: ShareGrant | None = None) -> datetime:
        """Return when the paths that are minted now stop working (UTC)."""
        return self._step_at(now, grant).expires_at

    def verify(self, ticket: str, object_id: str, revision: str) -> Ticket:
        """Check the signature of an object; its time is not looked at.

        Args:
            ticket: `<kid>.<exp>.<sig>`, with `.<share>` behind it where it belongs to a share.
            object_id: As it stands in the path.
            revision: As it stands in the path.

        Returns:
            What it says.

        Raises:
            FrameUrlInvalid: The signature is not ours.
        """
        key_id, expiry, given, *share = _ticket_parts(ticket)
        mac = _started(self._macs.get(key_id, self._no_mac), self._purpose, key_id, expiry)
        # Comparing the spellings also refuses every other base64 text of the same bytes.
        if not hmac.compare_digest(_signature(mac, object_id, revision, *share), given):
            raise FrameUrlInvalid(detail="signature")
        return Ticket(int(expiry, 16), share[0] if share else None)

    def check_time(self, expires: int, now: float) -> None:
        """Check the expiry of a path whose signature is right; both in epoch seconds.

        Raises:
            FrameUrlInvalid: We sign nothing for so long.
            FrameUrlExpired: It is too old.
        """
        longest = self._valid_seconds + self._step_seconds + CLOCK_SKEW_SECONDS
        if expires > now + longest:
            raise FrameUrlInvalid(detail="too far in the future")
        if now >= expires + CLOCK_SKEW_SECONDS:
            raise FrameUrlExpired

    def split(self, path: bytes, parts: int) -> list[str]:
        """Split a path as it was received into its parts after the prefix, by position.

        Raises:
            FrameUrlInvalid: It has another prefix or another number of parts.
        """
        try:
            text = path.decode("ascii")
        except UnicodeDecodeError as exc:
            raise FrameUrlInvalid(detail="malformed") from exc
        found = text[len(self._prefix) :].split("/")
        if not text.startswith(self._prefix) or len(found) != parts:
            raise FrameUrlInvalid(detail="malformed")
        return found

    def _step_at(self, now: float, grant: ShareGrant | None = None) -> "_Step":
        """Return what all paths minted in one step, and under one share, have in common."""
        step = self._step_seconds
        expires = -int(-(now + self._valid_seconds) // step) * step
        if expires != self._step.expires:
            self._step = self._step_until(expires)
        if grant is None or grant.expires >= expires:
            return self._step
        # A share that ends sooner has steps of its own; a page asks for many URLs at once.
        known, ending = self._granted
        if known != grant:
            ending = self._step_until(grant.expires)
            self._granted = (grant, ending)
        return ending

    def _step_until(self, expires: int) -> "_Step":
        expiry = f"{min(expires, _LATEST_EXPIRY):08x}"
        return _Step(
            expires,
            f"{self._prefix}{self._key_id}.{expiry}.",
            datetime.fromtimestamp(expires, UTC),
            _started(self._macs[self._key_id], self._purpose, self._key_id, expiry),
        )


@dataclass(frozen=True, slots=True)
class _Step:
    """One expiry: the head of its paths up to the signature, and the HMAC begun for them."""

    expires: int
    head: str
    expires_at: datetime
    mac: hmac.HMAC


def expiry_step_seconds(valid_seconds: int) -> int:
    """Return the step that expiries are rounded up to, in seconds.

    The same frame keeps its URL for one step, so that the cache of a browser works.
    """
    return max(_SHORTEST_STEP_SECONDS, valid_seconds // _STEPS_OF_VALIDITY)


def _ticket_parts(ticket: str) -> list[str]:
    """Split a ticket into kid, expiry, signature and, where it has one, share."""
    parts = ticket.split(".")
    if len(parts) not in {3, 4}:
        raise FrameUrlInvalid(detail="malformed")
    _, expiry, given, *share = parts
    if not _EXPIRY.fullmatch(expiry) or len(given) != _SIGNATURE_CHARACTERS:
        raise FrameUrlInvalid(detail="malformed")
    if share and not _SHARE_ID.fullmatch(share[0]):
        raise FrameUrlInvalid(detail="malformed")
    return parts


def _started(mac: hmac.HMAC, purpose: str, key_id: str, expiry: str) -> hmac.HMAC:
    begun = mac.copy()
    begun.update(f"{purpose}\n{key_id}\n{expiry}".encode())
    return begun


def _signature(mac: hmac.HMAC, *parts: str) -> str:
    """Add the signed parts and spell the signature; `mac` is used up."""
    for part in parts:
        mac.update(b"\n" + part.encode())
    return urlsafe_b64encode(mac.digest()[:_SIGNATURE_BYTES])[:_SIGNATURE_CHARACTERS].decode()


@dataclass(frozen=True, slots=True)
class FrameReference:
    """What a verified frame URL points to.

    Attributes:
        frame_index: 0-based within the instance.
        expires: Epoch seconds.
        share_id: The share that it was minted under, which may have ended.
    """

    instance_id: str
    revision: str
    frame_index: int
    variant: FrameVariant
    expires: int
    share_id: str | None = None


@dataclass(frozen=True, slots=True)
class ArchiveReference:
    """What a verified archive URL points to; `expires` in epoch seconds, the rest as for frames.

    Attributes:
        revision: Of the study.
        series_id: The one series that the archive holds, None for the whole study.
    """

    study_id: str
    revision: str
    expires: int
    share_id: str | None = None
    series_id: str | None = None


class FrameUrlSigner:
    """Mints and verifies signed paths.

    Args:
        keys: The first signs, all verify.
        valid_seconds: Shortest validity; rounding makes it up to a third longer.
    """

    def __init__(self, keys: FrameUrlKeys, *, valid_seconds: int = VALID_SECONDS) -> None:
        self._frames = ObjectSigner(keys, FRAME_PURPOSE, "/frames/v2", valid_seconds)
        self._archives = ObjectSigner(keys, ARCHIVE_PURPOSE, "/archives/v2", valid_seconds)
        self._series_archives = ObjectSigner(
            keys, SERIES_ARCHIVE_PURPOSE, _SERIES_ARCHIVES, valid_seconds
        )
        # A refusal is an exception, which is never kept: forged paths take no place here.
        self._verified = lru_cache(maxsize=_VERIFIED)(self._verify_frame)

    def frame_path(
        self,
        instance_id: str,
        revision: str,
        frame_index: int,
        variant: FrameVariant = _DEFAULT_VARIANT,
        *,
        now: float,
        grant: ShareGrant | None = None,
    ) -> SignedPath:
        """Mint the path of a frame.

        Args:
            instance_id: Orthanc's identifier of the instance.
            revision: 8 lower-case hex digits.
            frame_index: 0-based within the instance.
            variant: How to show it.
            now: Epoch seconds.
            grant: The share that it is minted under.
        """
        signed = self._frames.mint(instance_id, revision, now, grant)
        # Most URLs of a tree are of the default variant: its spelling costs nothing.
        text = "default.png" if variant is _DEFAULT_VARIANT else variant.text
        return SignedPath(f"{signed.path}/{frame_index}/{text}", signed.expires_at)

    def frame_template(
        self, instance_id: str, revision: str, *, now: float, grant: ShareGrant | None = None
    ) -> SignedPath:
        """Mint the paths of all frames of an instance, with `{frame}` and `{variant}` to fill in.

        Args:
            instance_id: Orthanc's identifier of the instance.
            revision: 8 lower-case hex digits.
            now: Epoch seconds.
            grant: The share that they are minted under.
        """
        signed = self._frames.mint(instance_id, revision, now, grant)
        return SignedPath(f"{signed.path}/{{frame}}/{{variant}}.png", signed.expires_at)

    def frames_expire_at(self, *, now: float, grant: ShareGrant | None = None) -> datetime:
        """Return when paths of frames that are minted now stop working (UTC)."""
        return self._frames.expires_at(now, grant)

    def archive_path(
        self, study_id: str, revision: str, *, now: float, grant: ShareGrant | None = None
    ) -> SignedPath:
        """Mint the path of a study's archive.

        Args:
            study_id: Orthanc's identifier of the study.
            revision: As `study_revision` makes it.
            now: Epoch seconds.
            grant: The share that it is minted under.
        """
        signed = self._archives.mint(study_id, revision, now, grant)
        return SignedPath(f"{signed.path}.zip", signed.expires_at)

    def series_archive_path(
        self,
        series_id: str,
        study_id: str,
        revision: str,
        *,
        now: float,
        grant: ShareGrant | None = None,
    ) -> SignedPath:
        """Mint the path of a series' archive.

        Args:
            series_id: Orthanc's identifier of the series.
            study_id: Orthanc's identifier of its study.
            revision: Of the study, as `study_revision` makes it.
            now: Epoch seconds.
            grant: The share that it is minted under.
        """
        signed = self._series_archives.mint(series_id, f"{study_id}/{revision}", now, grant)
        return SignedPath(f"{signed.path}.zip", signed.expires_at)

    def verify_frame(self, path: bytes, *, now: float) -> FrameReference:
        """Check a path as it was received and read it.

        Args:
            path: Raw path, neither unescaped nor normalised.
            now: Epoch seconds.

        Raises:
            FrameUrlInvalid: The signature is not ours, or what follows it is malformed.
            FrameUrlExpired: It was signed by us and is too old.
        """
        reference = self._verified(path)
        self._frames.check_time(reference.expires, now)
        return reference

    def _verify_frame(self, path: bytes) -> FrameReference:
        ticket, instance_id, revision, index, variant = self._frames.split(path, 5)
        said = self._frames.verify(ticket, instance_id, revision)
        if not (
            is_orthanc_id(instance_id)
            and _REVISION.fullmatch(revision)
            and _FRAME_INDEX.fullmatch(index)
        ):
            raise FrameUrlInvalid(detail="malformed")
        try:
            parsed = FrameVariant.parse(variant)
        except InvalidInput as exc:
            raise FrameUrlInvalid(detail="malformed") from exc
        return FrameReference(
            instance_id, revision, int(index), parsed, said.expires, said.share_id
        )

    def verify_archive(self, path: bytes, *, now: float) -> ArchiveReference:
        """Check the path of an archive; arguments and errors are those of `verify_frame`."""
        series_id = None
        if path.startswith(f"{_SERIES_ARCHIVES}/".encode()):
            ticket, series_id, study_id, file_name = self._series_archives.split(path, 4)
            revision = file_name.removesuffix(".zip")
            said = self._series_archives.verify(ticket, series_id, f"{study_id}/{revision}")
        else:
            ticket, study_id, file_name = self._archives.split(path, 3)
            revision = file_name.removesuffix(".zip")
            said = self._archives.verify(ticket, study_id, revision)
        self._archives.check_time(said.expires, now)
        if not (
            is_orthanc_id(study_id)
            and (series_id is None or is_orthanc_id(series_id))
            and _STUDY_REVISION.fullmatch(revision)
            and file_name.endswith(".zip")
        ):
            raise FrameUrlInvalid(detail="malformed")
        return ArchiveReference(study_id, revision, said.expires, said.share_id, series_id)


def study_revision(created_at: datetime) -> str:
    """Return the revision of a study: another one when it was deleted and stored again.

    Orthanc's identifiers follow from the DICOM identifiers, so what is stored again has the
    identifier of what was deleted.

    Args:
        created_at: When the study was first indexed; UTC where it names no zone, as in MongoDB.
    """
    moment = created_at if created_at.tzinfo else created_at.replace(tzinfo=UTC)
    return f"{int(moment.timestamp() * 1000):012x}"
