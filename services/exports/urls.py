"""Signed URLs of finished exports, made like those of frames.

    /exports/v2/<kid>.<exp>.<sig>/<job>/<revision>.zip

The purpose is `export-url/v2`, `<job>` the 16 hex digits of the job, and the revision the second in
which the export was finished, 8 lower-case hex digits; for everything else see
`services.frames.signing`.
"""

import re
from dataclasses import dataclass
from datetime import datetime

from services.errors import FrameUrlInvalid
from services.frames.signing import (
    VALID_SECONDS,
    FrameUrlKeys,
    ObjectSigner,
    ShareGrant,
    SignedPath,
)

_PURPOSE = "export-url/v2"
_JOB = re.compile(r"[0-9a-f]{16}")
_REVISION = re.compile(r"[0-9a-f]{8}")
_SUFFIX = ".zip"


@dataclass(frozen=True, slots=True)
class ExportReference:
    """What a verified URL of an export points to.

    Attributes:
        job_id: Of the job that made it.
        revision: When it was finished.
        expires: Epoch seconds.
        share_id: The share that it was minted under, which may have ended; None for none.
    """

    job_id: str
    revision: str
    expires: int
    share_id: str | None


def export_revision(finished_at: datetime) -> str:
    """Return the revision of an export that was finished at a time."""
    return f"{int(finished_at.timestamp()):08x}"


class ExportUrlSigner:
    """Mints and verifies signed paths of exports.

    Args:
        keys: The first signs, all verify.
        valid_seconds: Shortest validity; rounding makes it up to a third longer.
    """

    def __init__(self, keys: FrameUrlKeys, *, valid_seconds: int = VALID_SECONDS) -> None:
        self._exports = ObjectSigner(keys, _PURPOSE, "/exports/v2", valid_seconds)

    def path(
        self, job_id: str, finished_at: datetime, *, now: float, grant: ShareGrant | None = None
    ) -> SignedPath:
        """Mint the path of an export.

        Args:
            job_id: Of the job that made it.
            finished_at: When it was finished.
            now: Epoch seconds.
            grant: The share that it is minted under.
        """
        signed = self._exports.mint(job_id, export_revision(finished_at), now, grant)
        return SignedPath(signed.path + _SUFFIX, signed.expires_at)

    def verify(self, path: bytes, *, now: float) -> ExportReference:
        """Check a path as it was received and read it.

        Args:
            path: Raw path, neither unescaped nor normalised.
            now: Epoch seconds.

        Raises:
            FrameUrlInvalid: The signature is not ours, or the path is malformed.
            FrameUrlExpired: It was signed by us and is too old.
        """
        ticket, job_id, name = self._exports.split(path, 3)
        revision = name.removesuffix(_SUFFIX)
        said = self._exports.verify(ticket, job_id, revision)
        self._exports.check_time(said.expires, now)
        is_well_formed = _JOB.fullmatch(job_id) and _REVISION.fullmatch(revision)
        if not is_well_formed or name != revision + _SUFFIX:
            raise FrameUrlInvalid(detail="malformed")
        return ExportReference(job_id, revision, said.expires, said.share_id)
