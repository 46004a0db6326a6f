"""Blocking calls to Orthanc over kept connections, for threads that use the bytes themselves.

The bytes of frames and files never pass through the event loop: one thread asks, and goes on with
what came. urllib3 keeps the connections and reads the answers. Against our own former parser it
costs 0.15 ms of the processor more per call (`tests/benchmarks/README.md`); httpx costs 1.5 ms and
two changes of thread more.
"""

import base64
import re
import socket
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import InvalidURL, RemoteDisconnected
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ClosedPoolError,
    ConnectTimeoutError,
    HTTPError,
    NewConnectionError,
    ProtocolError,
    ReadTimeoutError,
)
from urllib3.response import HTTPResponse
from urllib3.util import SKIP_HEADER

from services.errors import (
    FileRejected,
    OrthancAborted,
    OrthancOutcomeUnknown,
    OrthancTimedOut,
    OrthancUnavailable,
)
from services.files import FileRange, became_longer, became_shorter
from services.orthanc.transport import CONNECT_SECONDS, raise_for_status, tls_context
from services.tasks import AbortSignal

_KEPT_CONNECTIONS = 64
"""More than there are threads that ask: no connection is closed because others are kept."""

_AT_ONCE_BYTES = 64 * 1024 * 1024
"""A read allocates what it asks for, and an answer may announce any length: at most this much is
read at a time."""

_NEVER_SENT = (NewConnectionError, ConnectTimeoutError, ClosedPoolError)

_BODILESS = (HTTPStatus.NO_CONTENT, HTTPStatus.NOT_MODIFIED)
_LENGTHS = ("Content-Length", "Transfer-Encoding")

_TARGET = re.compile(r"[!-~]+")
"""What a request line holds without being cut: printable ASCII and no space."""


class ConnectionPool:
    """Connections to Orthanc: one for each thread that asks, kept for the next call.

    Redirects are errors, answers come uncompressed, and proxies of the environment are not used,
    as with `open_http_client`.

    Args:
        url: Base URL of Orthanc.
        username: Its user name, `""` for none.
        password: Its password.
        timeout_seconds: Longest silence of Orthanc during one exchange, in seconds.
    """

    def __init__(self, url: str, username: str, password: str, *, timeout_seconds: float) -> None:
        parts = urlsplit(url)
        self._prefix = parts.path.rstrip("/")
        self._headers: dict[str, str] = {
            "Accept-Encoding": "identity",
            "User-Agent": SKIP_HEADER,
        }
        if username:
            # urllib3's own helper encodes in Latin-1; Orthanc reads UTF-8.
            credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {credentials}"
        self._current = _Current(timeout_seconds)
        options: dict[str, Any] = {
            "port": parts.port,
            "maxsize": _KEPT_CONNECTIONS,
            "timeout": urllib3.Timeout(connect=CONNECT_SECONDS, read=timeout_seconds),
            "current": self._current,
        }
        host = parts.hostname or ""
        self._pool: urllib3.HTTPConnectionPool
        if parts.scheme == "https":
            # The same authorities as for everything else that is asked of Orthanc.
            self._pool = _HttpsPool(host, ssl_context=tls_context(), **options)
        else:
            self._pool = _HttpPool(host, **options)
        self._lock = threading.Lock()
        self._calls: set[_Call] = set()
        self._is_closed = False

    def get(self, path: str) -> bytes:
        """GET a path and return the whole body; blocks. Errors are those of `post`.

        Args:
            path: Below the base URL, with its query.
        """
        return self._exchange("GET", path, self._headers, None, AbortSignal())

    def get_into(
        self, path: str, file: BinaryIO, *, max_bytes: int | None, abort: AbortSignal
    ) -> None:
        """GET a path and write its body, or the beginning of it, to a file; blocks.

        Errors are those of `post`.

        Args:
            path: Below the base URL, with its query.
            file: Written from its position on.
            max_bytes: Of a longer body so much is read, and the connection is closed; None: all.
            abort: Breaks the connection off when it is set.
        """
        try:
            self._exchange("GET", path, self._headers, None, abort, sink=_Sink(file, max_bytes))
        except _FileFailed as exc:
            raise exc.cause from None

    def post(
        self,
        path: str,
        pieces: Iterable[bytes | FileRange],
        size_bytes: int,
        *,
        abort: AbortSignal | None = None,
    ) -> bytes:
        """POST bytes and return the whole body of the answer; blocks.

        A request is sent once: what broke it may be what it asked for.

        Args:
            path: Below the base URL.
            pieces: The body, or where it is; read while it is sent.
            size_bytes: Its size. The connection is closed when the pieces have another one.
            abort: Breaks the connection off when it is set.

        Raises:
            OrthancUnavailable: Nothing was sent.
            OrthancTimedOut: Orthanc took too long.
            OrthancOutcomeUnknown: The connection broke later.
            OrthancError: Its subclass for the status, as in `raise_for_status`.
            FileRejected: The file became shorter than `size_bytes`, or longer.
            Exception: Whatever `pieces` raises, as it is.
        """
        headers = {**self._headers, "Content-Length": str(size_bytes)}
        body = _marked(_checked(pieces, size_bytes))
        try:
            return self._exchange("POST", path, headers, body, abort or AbortSignal())
        except _FileFailed as exc:
            # A fault of this file says nothing about Orthanc.
            raise exc.cause from None

    def _exchange(
        self,
        method: str,
        path: str,
        headers: dict[str, str],
        body: Iterable[bytes | FileRange] | None,
        abort: AbortSignal,
        *,
        sink: "_Sink | None" = None,
    ) -> bytes:
        with self._call(sink) as call, abort.calling(call.abort), _translated(call):
            target = self._prefix + path
            if _TARGET.fullmatch(target) is None:
                raise InvalidURL
            response = self._pool.urlopen(
                method,
                target,
                # `_FileSending.send` takes the ranges, which urllib3 passes on as they are.
                body=body,  # type: ignore[arg-type]
                headers=headers,
                retries=False,
                redirect=False,
                assert_same_host=False,
                preload_content=False,
                decode_content=False,
                release_conn=True,
            )
        raise_for_status(response.status, call.body)
        return call.body

    def close(self) -> None:
        """Close all connections; calls under way break off."""
        with self._lock:
            self._is_closed = True
            calls = tuple(self._calls)
        self._pool.close()
        for call in calls:
            call.abort()

    @contextmanager
    def _call(self, sink: "_Sink | None") -> "Iterator[_Call]":
        call = _Call(sink)
        with self._lock:
            if self._is_closed:
                raise OrthancUnavailable(detail="closed")
            self._calls.add(call)
        self._current.call = call
        try:
            yield call
        finally:
            self._current.call = None
            with self._lock:
                self._calls.discard(call)


class _Sink:
    """Where a body is written that is not kept in memory.

    Args:
        file: Written from its position on.
        max_bytes: Most bytes that are read; None: all.
    """

    def __init__(self, file: BinaryIO, max_bytes: int | None) -> None:
        self._file = file
        self._left = max_bytes

    def take(self, response: HTTPResponse) -> tuple[bool, bool]:
        """Read a body.

        Returns:
            Whether anything was read, and whether that was all.
        """
        has_any = False
        while self._left is None or self._left > 0:
            wanted = _AT_ONCE_BYTES if self._left is None else min(self._left, _AT_ONCE_BYTES)
            chunk = response.read(wanted)
            if not chunk:
                return has_any, True
            try:
                self._file.write(chunk)
            except OSError as exc:
                # Of the file and not of the connection: a full disk says nothing about Orthanc.
                raise _FileFailed(exc) from exc
            has_any = True
            if self._left is not None:
                self._left -= len(chunk)
        return has_any, False


class _Call:
    """One exchange: the connection that it uses, and the body of its answer.

    The connection is known only while it belongs to this call, so that an abort never breaks the
    call of another thread.
    """

    def __init__(self, sink: _Sink | None) -> None:
        self.body = b""
        self.sink = sink
        self._lock = threading.Lock()
        self._connection: HTTPConnection | None = None
        self._is_aborted = False

    @contextmanager
    def using(self, connection: HTTPConnection) -> Iterator[None]:
        with self._lock:
            if self._is_aborted:
                raise ConnectionAbortedError
            self._connection = connection
        try:
            yield
        finally:
            with self._lock:
                self._connection = None

    def abort(self) -> None:
        """Break the connection off; does not block."""
        with self._lock:
            self._is_aborted = True
            if self._connection is not None and (opened := self._connection.sock) is not None:
                # It may break by itself at the same moment.
                with suppress(OSError):
                    opened.shutdown(socket.SHUT_RDWR)

    @property
    def is_aborted(self) -> bool:
        return self._is_aborted

    def raise_if_aborted(self) -> None:
        if self._is_aborted:
            raise ConnectionAbortedError


class _Current(threading.local):
    """The call of this thread, for the connection that urllib3 chooses for it."""

    call: _Call | None = None

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds


class _FileSending(HTTPConnection):
    """A connection that sends ranges of files by the system and reads answers in steps."""

    def __init__(self, *args: Any, current: _Current, **options: Any) -> None:
        super().__init__(*args, **options)
        self._current = current

    def request(self, *args: Any, **options: Any) -> None:
        """Send a request, in the call of this thread."""
        call = self._current.call
        if call is None:
            raise RuntimeError("a request outside of a call")
        with call.using(self):
            super().request(*args, **options)

    def send(self, data: Any) -> None:  # noqa: ANN401  # as typeshed has it
        """Send bytes, or a range of a file without a copy in this process."""
        if self.sock is None:
            # As `http.client` does; urllib3 does it before where it speaks TLS.
            self.connect()
        # Until here it was the time for connecting, in which a busy Orthanc may take nothing.
        self.sock.settimeout(self._current.timeout_seconds)
        if self._current.call is not None:
            self._current.call.raise_if_aborted()
        if isinstance(data, FileRange):
            try:
                data.send(self.sock)
            except FileRejected as exc:
                raise _FileFailed(exc) from exc
        else:
            super().send(data)

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as urllib3 has it
        """Read an answer with its whole body, before the connection goes back to the pool."""
        call = self._current.call
        if call is None:
            raise RuntimeError("an answer outside of a call")
        with call.using(self):
            response = super().getresponse()
            if call.sink is not None and response.status == HTTPStatus.OK:
                has_body, is_whole = call.sink.take(response)
                if not is_whole:
                    # The rest is still to come: this connection answers no other request.
                    response.close()
                    self.close()
            else:
                call.body = b"".join(iter(lambda: response.read(_AT_ONCE_BYTES), b""))
                has_body = bool(call.body)
        if not has_body and not _has_end(response):
            # `http.client` takes a head that breaks off for a whole one.
            raise RemoteDisconnected("the connection ended within the head of an answer")
        return response


def _has_end(response: HTTPResponse) -> bool:
    """Return whether the head of an answer says where its body ends."""
    return response.status in _BODILESS or any(field in response.headers for field in _LENGTHS)


class _TlsFileSending(_FileSending, HTTPSConnection):
    """The same over TLS."""


class _HttpPool(urllib3.HTTPConnectionPool):
    ConnectionCls = _FileSending


class _HttpsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _TlsFileSending


class _FileFailed(Exception):  # raised and caught in this module only
    """Carries an error of a file past urllib3, which would take an OSError for its own."""

    def __init__(self, cause: Exception) -> None:
        super().__init__()
        self.cause = cause


def _marked(pieces: Iterable[bytes | FileRange]) -> Iterator[bytes | FileRange]:
    """Mark the errors of a source as its own."""
    try:
        yield from pieces
    except Exception as exc:
        raise _FileFailed(exc) from exc


def _checked(pieces: Iterable[bytes | FileRange], size_bytes: int) -> Iterator[bytes | FileRange]:
    """Pass pieces on while they stay within the announced size.

    A body of another size than its header announces would make its end, or its lack, a part of
    the next request.
    """
    left = size_bytes
    for piece in pieces:
        left -= len(piece)
        if left < 0:
            raise became_longer()
        yield piece
    if left:
        raise became_shorter()


@contextmanager
def _translated(call: _Call) -> Iterator[None]:
    try:
        with _translated_faults():
            yield
    except OrthancUnavailable as exc:
        if not call.is_aborted:
            raise
        raise OrthancAborted(detail=exc.detail) from exc


@contextmanager
def _translated_faults() -> Iterator[None]:
    try:
        yield
    except _NEVER_SENT as exc:
        raise OrthancUnavailable(detail=type(exc).__name__) from exc
    except (ReadTimeoutError, TimeoutError) as exc:
        raise OrthancTimedOut(detail=type(exc).__name__) from exc
    except ProtocolError as exc:
        cause = exc.args[1] if len(exc.args) > 1 else exc
        error = OrthancTimedOut if isinstance(cause, TimeoutError) else OrthancOutcomeUnknown
        raise error(detail=type(cause).__name__) from exc
    except (HTTPError, OSError, InvalidURL) as exc:
        raise OrthancOutcomeUnknown(detail=type(exc).__name__) from exc
