"""Blocking calls over connections that stay open, for threads that use the bytes themselves.

A frame by httpx costs 1.5 ms and two changes of thread more. `http.client` only connects: its own
requests and answers cost 0.3 ms of the processor more than those here.
"""

import base64
import re
import select
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from http.client import (
    BadStatusLine,
    HTTPConnection,
    HTTPException,
    HTTPSConnection,
    IncompleteRead,
    InvalidURL,
    LineTooLong,
    RemoteDisconnected,
)
from typing import BinaryIO
from urllib.parse import urlsplit

import httpx

from services.errors import (
    FileRejected,
    OrthancOutcomeUnknown,
    OrthancTimedOut,
    OrthancUnavailable,
)
from services.files import FileRange
from services.orthanc.transport import CONNECT_SECONDS, raise_for_status

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


_TARGET = re.compile(r"[!-~]+")
"""What a request line holds without being cut: printable ASCII and no space."""


class ConnectionPool:
    """Connections to Orthanc: one for each thread that is asking, kept for the next.

    Redirects are errors, answers come uncompressed, and proxies of the environment are not used,
    as with `open_http_client`.

    Args:
        url: Base URL of Orthanc.
        username: Its user name, `""` for none.
        password: Its password.
        timeout_seconds: Longest silence of Orthanc during one answer, in seconds.
    """

    def __init__(self, url: str, username: str, password: str, *, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        host = parts.hostname or ""
        self._make: partial[HTTPConnection] = (
            # The same authorities as for everything else that is asked of Orthanc.
            partial(
                HTTPSConnection,
                host,
                parts.port,
                context=httpx.create_ssl_context(trust_env=False),
            )
            if parts.scheme == "https"
            else partial(HTTPConnection, host, parts.port)
        )
        self._timeout_seconds = timeout_seconds
        self._prefix = parts.path.rstrip("/")
        self._fields = f"Host: {_authority(host, parts.port)}\r\nAccept-Encoding: identity\r\n"
        if username:
            credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
            self._fields += f"Authorization: Basic {credentials}\r\n"
        self._lock = threading.Lock()
        self._idle: list[HTTPConnection] = []
        self._busy: set[HTTPConnection] = set()
        self._is_closed = False

    def get(self, path: str) -> bytes:
        """GET a path and return the whole body; blocks. Errors are those of `post`.

        Args:
            path: Below the base URL, with its query.
        """
        return self._exchange("GET", path, self._fields, ())

    def post(self, path: str, pieces: Iterable[bytes | FileRange], size_bytes: int) -> bytes:
        """POST bytes and return the whole body of the answer; blocks.

        A request is sent once: what broke it may be what it asked for.

        Args:
            path: Below the base URL.
            pieces: The body, or where it is; read while it is sent.
            size_bytes: Its size.

        Raises:
            OrthancUnavailable: Nothing went out.
            OrthancTimedOut: Orthanc took too long.
            OrthancOutcomeUnknown: The connection broke later.
            OrthancError: Its subclass for the status, as in `raise_for_status`.
            Exception: Whatever `pieces` raises, as it is; FileRejected when an extent's file ends.
        """
        fields = f"{self._fields}Content-Length: {size_bytes}\r\n"
        try:
            return self._exchange("POST", path, fields, _told_apart(pieces))
        except _SourceFailed as exc:
            # Of this file: it says nothing about Orthanc.
            raise exc.cause from None

    def _exchange(
        self, method: str, path: str, fields: str, body: Iterable[bytes | FileRange]
    ) -> bytes:
        target = self._prefix + path
        with self._connection() as connection:
            opened = _connected(connection, self._timeout_seconds)
            with _translated():
                if _TARGET.fullmatch(target) is None:
                    raise InvalidURL
                opened.sendall(f"{method} {target} HTTP/1.1\r\n{fields}\r\n".encode("ascii"))
                answer = _answer_of(opened, body)
            if answer.is_last:
                connection.close()
        raise_for_status(answer.status, answer.body)
        return answer.body

    def close(self) -> None:
        """Close all connections; calls that are under way break off."""
        with self._lock:
            self._is_closed = True
            for connection in self._idle:
                connection.close()
            for connection in self._busy:
                # It may break by itself at the same moment.
                if (opened := connection.sock) is not None:
                    with suppress(OSError):
                        opened.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def _connection(self) -> Iterator[HTTPConnection]:
        with self._lock:
            if self._is_closed:
                raise OrthancUnavailable(detail="closed")
            connection = self._idle.pop() if self._idle else self._make()
            self._busy.add(connection)
        is_whole = False
        try:
            yield connection
            is_whole = True
        finally:
            with self._lock:
                self._busy.discard(connection)
                if is_whole and not self._is_closed:
                    self._idle.append(connection)
                else:
                    connection.close()


class _SourceFailed(Exception):  # carried past the translation, seen by nobody
    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def _told_apart(pieces: Iterable[bytes | FileRange]) -> Iterator[bytes | FileRange]:
    try:
        yield from pieces
    except Exception as exc:
        raise _SourceFailed(exc) from exc


def _authority(host: str, port: int | None) -> str:
    name = f"[{host}]" if ":" in host else host if host.isascii() else host.encode("idna").decode()
    return name if port is None else f"{name}:{port}"


def _connected(connection: HTTPConnection, timeout_seconds: float) -> socket.socket:
    """Open a connection that is not open, or that Orthanc closed while nobody used it."""
    opened: socket.socket | None = connection.sock
    if opened is not None and not _is_readable(opened):
        return opened
    # Nothing was asked: what can be read is the end.
    connection.close()
    connection.timeout = CONNECT_SECONDS
    try:
        connection.connect()
    except OSError as exc:
        raise OrthancUnavailable(detail=type(exc).__name__) from exc
    connection.sock.settimeout(timeout_seconds)
    return connection.sock


def _answer_of(opened: socket.socket, body: Iterable[bytes | FileRange]) -> Answer:
    """Send the body of a request and read the answer."""
    for piece in body:
        if isinstance(piece, bytes):
            opened.sendall(piece)
        else:
            _send(piece, opened)
    with opened.makefile("rb") as stream:
        return read_answer(stream)


def _send(extent: FileRange, opened: socket.socket) -> None:
    try:
        extent.send(opened)
    except FileRejected as exc:
        raise _SourceFailed(exc) from exc


def _is_readable(opened: socket.socket) -> bool:
    poll = select.poll()
    poll.register(opened, select.POLLIN)
    return bool(poll.poll(0))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise OrthancTimedOut(detail=type(exc).__name__) from exc
    except (OSError, HTTPException) as exc:
        raise OrthancOutcomeUnknown(detail=type(exc).__name__) from exc
