from collections.abc import Callable

import pytest

from services.downloads.urls import FileUrlSigner
from services.errors import FrameUrlExpired, FrameUrlInvalid
from services.frames.signing import FrameUrlKeys, FrameUrlSigner, ShareGrant

KEYS = FrameUrlKeys((("k1", bytes(range(32))),))
SIGNER = FileUrlSigner(KEYS)
INSTANCE = "0a1b2c3d-4e5f6071-8293a4b5-c6d7e8f9-0a1b2c3d"
REVISION = "deadbeef"
NOW = 1_722_850_000.0


def test_the_path_of_a_file_is_verified() -> None:
    path = SIGNER.file_path(INSTANCE, REVISION, now=NOW).path
    assert path.startswith("/files/v2/k1.")
    assert path.endswith(f"/{INSTANCE}/{REVISION}.dcm")
    reference = SIGNER.verify_file(path.encode(), now=NOW)
    assert (reference.instance_id, reference.revision, reference.share_id) == (
        INSTANCE,
        REVISION,
        None,
    )


def test_the_url_of_a_document_opens_no_file_and_no_picture() -> None:
    document = SIGNER.document_path(INSTANCE, REVISION, now=NOW).path
    file = SIGNER.file_path(INSTANCE, REVISION, now=NOW).path
    assert SIGNER.verify_document(document.encode(), now=NOW).instance_id == INSTANCE
    frame = FrameUrlSigner(KEYS).frame_path(INSTANCE, REVISION, 0, now=NOW).path
    signatures = {path.split("/")[3] for path in (document, file, frame)}
    assert len(signatures) == 3
    forged = file.replace(file.split("/")[3], document.split("/")[3])
    with pytest.raises(FrameUrlInvalid):
        SIGNER.verify_file(forged.encode(), now=NOW)


@pytest.mark.parametrize(
    "change",
    [
        lambda path: path.removesuffix(".dcm"),
        lambda path: path + ".dcm",
        lambda path: path.replace("deadbeef", "deadbeee"),
        lambda path: path.replace("0a1b2c3d-4e", "0a1b2c3e-4e"),
        lambda path: path + "/x",
        lambda path: path.replace("/files/", "/documents/"),
        lambda path: path.replace(INSTANCE, "é"),
    ],
)
def test_a_changed_path_is_refused(change: Callable[[str], str]) -> None:
    path = SIGNER.file_path(INSTANCE, REVISION, now=NOW).path
    with pytest.raises(FrameUrlInvalid):
        SIGNER.verify_file(change(path).encode(), now=NOW)


def test_a_path_ends_with_its_time_and_with_its_share() -> None:
    grant = ShareGrant("0123456789abcdef", int(NOW) + 60)
    path = SIGNER.file_path(INSTANCE, REVISION, now=NOW, grant=grant).path
    assert SIGNER.verify_file(path.encode(), now=NOW).share_id == grant.share_id
    with pytest.raises(FrameUrlExpired):
        SIGNER.verify_file(path.encode(), now=NOW + 200)
    with pytest.raises(FrameUrlInvalid):
        SIGNER.verify_file(path.replace("0123456789abcdef", "0123456789abcdee").encode(), now=NOW)
