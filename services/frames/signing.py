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

import re
from dataclasses import dataclass
from functools import lru_cache

from services.errors import FrameUrlInvalid, InvalidInput
from services.frames.keys import FrameUrlKeys
from services.frames.path_signer import PathSigner, SignedPath
from services.frames.variant import FrameVariant
from services.orthanc.identifiers import is_orthanc_id

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
