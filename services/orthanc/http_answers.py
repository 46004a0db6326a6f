"""Answers of HTTP/1.1, read from a blocking connection (RFC 9112).

`http.client` reads the fields with the parser of e-mail: 0.3 ms of the processor per answer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.client import (
    BadStatusLine,
    HTTPException,
    IncompleteRead,
    LineTooLong,
    RemoteDisconnected,
)
from typing import BinaryIO

_LINE_BYTES = 65_536
"""Longest line, as in `http.client`."""

_FIELDS = 100
"""Most fields, as in `http.client`."""

_AT_ONCE_BYTES = 64 * 1024 * 1024
"""A read sets aside what it asks for, which may be announced only: no more than this at a time."""

_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) (\d{3})(?: .*)?\r?\n", re.DOTALL)
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):(.*)\n", re.DOTALL)
_CHUNK_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;.*)?\r?\n", re.DOTALL)
_LENGTH = re.compile(rb"\d{1,18}")
_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer to any method but HEAD.

    Attributes:
        status: HTTP status.
        body: The whole body, without its transfer coding.
        is_last: Whether the connection ends with it.
    """

    status: int
    body: bytes
    is_last: bool


@dataclass(frozen=True, slots=True)
class _Head:
    minor_version: int
    status: int
    fields: Mapping[bytes, bytes]

    @property
    def is_kept(self) -> bool:
        """Whether the connection outlasts the answer (section 9.3)."""
        options = self.tokens(b"connection")
        return b"close" not in options and (self.minor_version > 0 or b"keep-alive" in options)

    def tokens(self, name: bytes) -> list[bytes]:
        return [token.strip().lower() for token in self.fields.get(name, b"").split(b",")]


def read_answer(stream: BinaryIO) -> Answer:
    """Read one answer to its end; interim ones (1xx) are passed over.

    Args:
        stream: Buffered; nothing of it has been read.

    Raises:
        HTTPException: That is no HTTP, or it ends before the answer does.
        OSError: As the connection raises it.
    """
    head = _read_head(stream)
    while head.status < HTTPStatus.OK:
        head = _read_head(stream)
    is_kept = head.is_kept
    if head.status in _BODILESS:
        return Answer(head.status, b"", not is_kept)
    length = head.fields.get(b"content-length")
    # Section 6.3: a coding goes before a length, and whoever sends both is not trusted further.
    if b"transfer-encoding" in head.fields:
        if head.tokens(b"transfer-encoding") != [b"chunked"]:
            raise HTTPException("a transfer coding that was not asked for")
        return Answer(head.status, _read_chunks(stream), not is_kept or length is not None)
    if length is None:
        return Answer(head.status, stream.read(), is_last=True)
    if _LENGTH.fullmatch(length) is None:
        raise HTTPException("not a length")
    return Answer(head.status, _read_exactly(stream, int(length)), not is_kept)


def _read_head(stream: BinaryIO) -> _Head:
    line = _read_line(stream)
    status = _STATUS_LINE.fullmatch(line)
    if status is None:
        raise BadStatusLine(repr(line))
    fields: dict[bytes, bytes] = {}
    for _ in range(_FIELDS):
        line = _read_line(stream)
        if line in (b"\r\n", b"\n"):
            return _Head(int(status[1]), int(status[2]), fields)
        field = _FIELD.fullmatch(line)
        if field is None:
            raise HTTPException("not a field")
        # Not by the expression, which would look at each space for each space before it.
        name, value = field[1].lower(), field[2].removesuffix(b"\r").strip(b" \t")
        fields[name] = fields[name] + b", " + value if name in fields else value
    raise HTTPException("too many fields")


def _read_chunks(stream: BinaryIO) -> bytes:
    """Read a chunked body and its trailer (section 7.1)."""
    chunks = []
    while size := _read_chunk_size(stream):
        chunks.append(_read_exactly(stream, size))
        if _read_line(stream) != b"\r\n":
            raise HTTPException("a chunk that is longer than its size")
    for _ in range(_FIELDS):
        if _read_line(stream) in (b"\r\n", b"\n"):
            return b"".join(chunks)
    raise HTTPException("too many fields")


def _read_chunk_size(stream: BinaryIO) -> int:
    size = _CHUNK_SIZE.fullmatch(_read_line(stream))
    if size is None:
        raise HTTPException("not the size of a chunk")
    return int(size[1], 16)


def _read_line(stream: BinaryIO) -> bytes:
    line = stream.readline(_LINE_BYTES + 1)
    if len(line) > _LINE_BYTES:
        raise LineTooLong("line")
    if not line.endswith(b"\n"):
        raise RemoteDisconnected("the connection ended within an answer")
    return line


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    pieces = []
    left = size
    while left:
        piece = stream.read(min(left, _AT_ONCE_BYTES))
        if not piece:
            raise IncompleteRead(b"", left)
        pieces.append(piece)
        left -= len(piece)
    return b"".join(pieces)
