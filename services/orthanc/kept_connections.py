"""Blocking calls over connections that stay open, for threads that use the bytes themselves.

A frame by httpx costs 1.5 ms and two changes of thread; by `http.client` 0.2 ms and none.
"""

import base64
import select
import socket
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

import httpx

from services.errors import OrthancOutcomeUnknown, OrthancTimedOut, OrthancUnavailable
from services.orthanc.transport import CONNECT_SECONDS, raise_for_status


class KeptConnections:
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
        self._headers = {"Accept-Encoding": "identity"}
        if username:
            credentials = base64.b64encode(f"{username}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {credentials}"
        self._lock = threading.Lock()
        self._idle: list[HTTPConnection] = []
        self._busy: set[HTTPConnection] = set()
        self._is_closed = False

    def get(self, path: str) -> bytes:
        """GET a path and return the whole body; blocks. Errors are those of `post`.

        Args:
            path: Below the base URL, with its query.
        """
        return self._exchange("GET", path, None, self._headers)

    def post(self, path: str, chunks: Iterable[bytes], size_bytes: int) -> bytes:
        """POST bytes and return the whole body of the answer; blocks.

        A request is sent once: what broke it may be what it asked for.

        Args:
            path: Below the base URL.
            chunks: The body, read while it is sent.
            size_bytes: Its size.

        Raises:
            OrthancUnavailable: Nothing went out.
            OrthancTimedOut: Orthanc took too long.
            OrthancOutcomeUnknown: The connection broke later.
            OrthancError: Its subclass for the status, as in `raise_for_status`.
            Exception: Whatever `chunks` raises, as it is.
        """
        headers = self._headers | {"Content-Length": str(size_bytes)}
        try:
            return self._exchange("POST", path, _told_apart(chunks), headers)
        except _SourceFailed as exc:
            # Of this file: it says nothing about Orthanc.
            raise exc.cause from None

    def _exchange(
        self, method: str, path: str, body: Iterable[bytes] | None, headers: Mapping[str, str]
    ) -> bytes:
        with self._connection() as connection:
            _connect(connection, self._timeout_seconds)
            with _translated():
                connection.request(method, self._prefix + path, body=body, headers=headers)
                response = connection.getresponse()
                answer = response.read()
        raise_for_status(response.status, answer)
        return answer

    def close(self) -> None:
        """Close all connections; calls that are under way break off."""
        with self._lock:
            self._is_closed = True
            for connection in self._idle:
                connection.close()
            for connection in self._busy:
                if connection.sock is not None:
                    # It may break by itself at the same moment.
                    with suppress(OSError):
                        connection.sock.shutdown(socket.SHUT_RDWR)

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


def _told_apart(chunks: Iterable[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except Exception as exc:
        raise _SourceFailed(exc) from exc


def _connect(connection: HTTPConnection, timeout_seconds: float) -> None:
    """Open a connection that is not open, or that Orthanc closed while nobody used it."""
    if connection.sock is not None and _is_readable(connection.sock):
        # Nothing was asked: what can be read is the end.
        connection.close()
    if connection.sock is None:
        connection.timeout = CONNECT_SECONDS
        try:
            connection.connect()
        except OSError as exc:
            raise OrthancUnavailable(detail=type(exc).__name__) from exc
    connection.sock.settimeout(timeout_seconds)


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
