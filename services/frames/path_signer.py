"""Paths with a signature and an expiry in front, for one purpose; the format is in `signing`."""

import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from datetime import UTC, datetime

from services.errors import FrameUrlExpired, FrameUrlInvalid
from services.frames.keys import FrameUrlKeys

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
