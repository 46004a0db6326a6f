"""Signed URLs of DICOM files and of the documents in them, made like those of frames.

    /files/v2/<kid>.<exp>.<sig>/<orthancInstanceId>/<revision>.dcm
    /documents/v2/<kid>.<exp>.<sig>/<orthancInstanceId>/<revision>

The purposes are `file-url/v2` and `document-url/v2`; for everything else see
`services.frames.signing`. The URL of a document does not open the file, which a share may not
allow.
"""

import re
from dataclasses import dataclass

from services.errors import FrameUrlInvalid
from services.frames.signing import (
    VALID_SECONDS,
    FrameUrlKeys,
    ObjectSigner,
    ShareGrant,
    SignedPath,
)
from services.orthanc.identifiers import is_orthanc_id

_FILE_PURPOSE = "file-url/v2"
_DOCUMENT_PURPOSE = "document-url/v2"
_REVISION = re.compile(r"[0-9a-f]{8}")
_SUFFIX = ".dcm"


@dataclass(frozen=True, slots=True)
class FileReference:
    """What a verified URL of a file or a document points to.

    Attributes:
        instance_id: Orthanc's identifier.
        revision: Of the stored file.
        expires: Epoch seconds.
        share_id: The share that it was minted under, which may have ended; None for none.
    """

    instance_id: str
    revision: str
    expires: int
    share_id: str | None


class FileUrlSigner:
    """Mints and verifies signed paths of files and documents.

    Args:
        keys: The first signs, all verify.
        valid_seconds: Shortest validity; rounding makes it up to a third longer.
    """

    def __init__(self, keys: FrameUrlKeys, *, valid_seconds: int = VALID_SECONDS) -> None:
        self._files = ObjectSigner(keys, _FILE_PURPOSE, "/files/v2", valid_seconds)
        self._documents = ObjectSigner(keys, _DOCUMENT_PURPOSE, "/documents/v2", valid_seconds)

    def file_path(
        self, instance_id: str, revision: str, *, now: float, grant: ShareGrant | None = None
    ) -> SignedPath:
        """Mint the path of a DICOM file.

        Args:
            instance_id: Orthanc's identifier of the instance.
            revision: 8 lower-case hex digits.
            now: Epoch seconds.
            grant: The share that it is minted under.
        """
        signed = self._files.mint(instance_id, revision, now, grant)
        return SignedPath(signed.path + _SUFFIX, signed.expires_at)

    def document_path(
        self, instance_id: str, revision: str, *, now: float, grant: ShareGrant | None = None
    ) -> SignedPath:
        """Mint the path of the document in a file; arguments are those of `file_path`."""
        return self._documents.mint(instance_id, revision, now, grant)

    def verify_file(self, path: bytes, *, now: float) -> FileReference:
        """Check a path as it was received and read it.

        Args:
            path: Raw path, neither unescaped nor normalised.
            now: Epoch seconds.

        Raises:
            FrameUrlInvalid: The signature is not ours, or the path is malformed.
            FrameUrlExpired: It was signed by us and is too old.
        """
        return _verified(self._files, path, now, suffix=_SUFFIX)

    def verify_document(self, path: bytes, *, now: float) -> FileReference:
        """Check the path of a document; arguments and errors are those of `verify_file`."""
        return _verified(self._documents, path, now, suffix="")


def _verified(signer: ObjectSigner, path: bytes, now: float, *, suffix: str) -> FileReference:
    ticket, instance_id, name = signer.split(path, 3)
    revision = name.removesuffix(suffix)
    said = signer.verify(ticket, instance_id, revision)
    signer.check_time(said.expires, now)
    is_well_formed = is_orthanc_id(instance_id) and _REVISION.fullmatch(revision)
    if not is_well_formed or name != revision + suffix:
        raise FrameUrlInvalid(detail="malformed")
    return FileReference(instance_id, revision, said.expires, said.share_id)
