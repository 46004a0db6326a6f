"""What schemathesis must know of this API: files to upload, a scalar, and our errors' codes."""

from pathlib import Path
from random import Random
from typing import Any

import schemathesis
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from schemathesis.graphql import nodes

_FILES = ("CT_small.dcm", "MR_small_RLE.dcm", "rtplan.dcm", "reportsi.dcm", "no_meta.dcm")
_MASKED = b'"INTERNAL_ERROR"'


def _contents() -> list[bytes]:
    paths = (get_testdata_file(name, download=False) for name in _FILES)
    return [Path(str(path)).read_bytes() for path in paths]


def _damaged(content: bytes, seed: int) -> bytes:
    """Replace some bytes of the header."""
    random = Random(seed)  # noqa: S311  # damage, no secret
    changed = bytearray(content)
    for _ in range(random.randrange(4)):
        changed[random.randrange(min(len(changed), 2048))] = random.randrange(256)
    return bytes(changed)


schemathesis.openapi.format(
    "dicom",
    st.one_of(
        st.builds(_damaged, st.sampled_from(_contents()), st.integers(0, 2**32)), st.binary()
    ),
)
# A JSON request has no files; tests/real/test_upload_requests.py sends them.
schemathesis.graphql.scalar("Upload", st.just(nodes.Null))


def _content_of(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="replace")


@schemathesis.serializer("application/dicom")
def file_alone(_context: schemathesis.SerializationContext, value: object) -> bytes:
    """Send a file as the whole body."""
    return _content_of(value)


@schemathesis.serializer("multipart/related")
def related_parts(_context: schemathesis.SerializationContext, value: object) -> bytes:
    """Send a file as the only part of a request to store it (PS3.18 10.5)."""
    head = b"--part\r\nContent-Type: application/dicom\r\n\r\n"
    return b"".join((head, _content_of(value), b"\r\n--part--\r\n"))


@schemathesis.check
def not_an_unexpected_error(
    _context: schemathesis.CheckContext,
    response: schemathesis.Response,
    _case: "schemathesis.Case[Any]",
) -> None:
    """Fail for statuses of 500 and more, and for errors that were masked: nobody foresaw them."""
    assert response.status_code < 500, f"status {response.status_code}"
    assert _MASKED not in response.content, response.text
