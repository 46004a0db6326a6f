"""One HTTP exchange with Orthanc, with every fault translated into `services.errors`."""

import json
import re
import ssl
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import cache
from http import HTTPStatus

import httpx

from services.errors import (
    Error,
    OrthancAborted,
    OrthancAuthenticationFailed,
    OrthancBusy,
    OrthancError,
    OrthancFull,
    OrthancNotFound,
    OrthancOutcomeUnknown,
    OrthancRefused,
    OrthancTimedOut,
    OrthancUnavailable,
)
from services.observability.metrics import ORTHANC_SECONDS, timed
from services.observability.tracing import TRACING

FAULTS = 3
FAULT_WINDOW_SECONDS = 10.0
OPEN_SECONDS = 0.5
"""The embedded Orthanc is back within 1 s: a longer pause would outlast its absence."""


class CircuitBreaker:
    """Opens after 3 connection faults within 10 s, then lets one call probe at a time.

    An answer 503 is no fault while other calls succeed: several Orthancs on one database refuse
    writes that collide. The event loop and threads share it.

    Args:
        clock: Seconds that never go back.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._faults: deque[float] = deque(maxlen=FAULTS)
        self._closed_again_at: float | None = None
        self._succeeded_at = float("-inf")
        self._lock = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether calls are refused or only one of them probes."""
        return self._closed_again_at is not None

    @property
    def is_refusing(self) -> bool:
        """Whether the next call is refused; one that may probe is not."""
        return self._closed_again_at is not None and self._clock() < self._closed_again_at

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Count what one call finds out.

        Raises:
            OrthancUnavailable: The breaker is open; nothing was sent.
        """
        self._admit()
        try:
            yield
        except OrthancUnavailable as exc:
            self.record(exc)
            raise
        except Error:
            # Orthanc answered, if only with an error: it is there.
            self._close()
            raise
        else:
            self._close()

    def _admit(self) -> None:
        with self._lock:
            if self._closed_again_at is None:
                return
            now = self._clock()
            if now < self._closed_again_at:
                raise OrthancUnavailable(detail="circuit breaker is open")
            # This call probes; the others go on waiting for what it finds.
            self._closed_again_at = now + OPEN_SECONDS

    def record(self, fault: OrthancUnavailable) -> None:
        """Count a fault, unless it says nothing about whether Orthanc is there.

        That is so of an answer that takes long, of a wait for one of our own connections, and of a
        call that we broke off.
        """
        is_ours = isinstance(fault, OrthancAborted) or isinstance(
            fault.__cause__, httpx.PoolTimeout
        )
        if is_ours or isinstance(fault, OrthancTimedOut):
            return
        with self._lock:
            now = self._clock()
            if isinstance(fault, OrthancBusy) and now - self._succeeded_at < FAULT_WINDOW_SECONDS:
                return
            self._faults.append(now)
            is_burst = len(self._faults) == FAULTS and now - self._faults[0] <= FAULT_WINDOW_SECONDS
            if is_burst or self._closed_again_at is not None:
                self._closed_again_at = now + OPEN_SECONDS

    def _close(self) -> None:
        with self._lock:
            self._faults.clear()
            self._closed_again_at = None
            self._succeeded_at = self._clock()


CONNECT_SECONDS = 3
"""An Orthanc on the same network accepts within milliseconds or not at all."""

_ANSWER_SECONDS = 30
"""Longest silence of Orthanc during an ordinary answer."""

_NEVER_SENT = (
    httpx.ConnectError,
    httpx.ConnectTimeout,
    httpx.PoolTimeout,
    httpx.UnsupportedProtocol,
    httpx.InvalidURL,
    httpx.ProxyError,
)
"""Faults before the request went out: Orthanc can't have acted on it."""

_OPENED = "connection.connect_tcp.started"
_ANSWERED = "http11.receive_response_headers.complete"
"""Events that httpcore traces: a new connection is opened; the head of the answer is read."""

_ERRORS_BY_STATUS: dict[int, type[OrthancError]] = {
    HTTPStatus.BAD_REQUEST: OrthancRefused,
    HTTPStatus.UNAUTHORIZED: OrthancAuthenticationFailed,
    HTTPStatus.FORBIDDEN: OrthancAuthenticationFailed,
    HTTPStatus.NOT_FOUND: OrthancNotFound,
    HTTPStatus.CONFLICT: OrthancRefused,
    HTTPStatus.UNSUPPORTED_MEDIA_TYPE: OrthancRefused,
    HTTPStatus.INSUFFICIENT_STORAGE: OrthancFull,
    # Of a proxy whose connection to Orthanc broke.
    HTTPStatus.BAD_GATEWAY: OrthancOutcomeUnknown,
    HTTPStatus.SERVICE_UNAVAILABLE: OrthancBusy,
    HTTPStatus.GATEWAY_TIMEOUT: OrthancOutcomeUnknown,
}

_CANNOT_WRITE_FILE = 14
_FULL_STORAGE = 19
_SQLITE = range(1001, 1016)
"""Orthanc's own error codes (OrthancFramework, Enumerations.h), which it sends as `OrthancStatus`.
Older releases answer all of them with 500."""


@cache
def tls_context() -> ssl.SSLContext:
    """Return what an Orthanc is verified with by https: reading all authorities takes 20 ms."""
    return httpx.create_ssl_context(trust_env=False)


def open_http_client(
    url: str, username: str, password: str, *, connections: int = 32
) -> httpx.AsyncClient:
    """Make the HTTP client of Orthanc: fixed base URL, no redirects, no compression.

    Args:
        url: Base URL of Orthanc.
        username: Its user name, `""` for none.
        password: Its password.
        connections: Most connections at once, in connections.
    """
    return httpx.AsyncClient(
        base_url=url,
        auth=httpx.BasicAuth(username, password) if username else None,
        # Orthanc compresses on the fly, at a sixteenth of the speed of sending as it is.
        headers={"Accept-Encoding": "identity"},
        follow_redirects=False,
        trust_env=False,
        verify=tls_context(),
        timeout=timeout_of(None),
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
    )


def timeout_of(seconds: float | None, *, pool_seconds: float | None = None) -> httpx.Timeout:
    """Return how long an answer is waited for; a connection is never waited for longer.

    Args:
        seconds: Longest silence, in seconds; None for an ordinary one.
        pool_seconds: Longest wait for one of the connections, in seconds; None: as long.
    """
    answer_seconds = _ANSWER_SECONDS if seconds is None else seconds
    return httpx.Timeout(
        answer_seconds,
        connect=CONNECT_SECONDS,
        pool=answer_seconds if pool_seconds is None else pool_seconds,
    )


@contextmanager
def translated_faults() -> Iterator[None]:
    """Turn httpx's exceptions into ours.

    Raises:
        OrthancUnavailable: Nothing went out.
        OrthancTimedOut: Orthanc took too long.
        OrthancOutcomeUnknown: The connection broke later: Orthanc may have acted.
    """
    try:
        yield
    except _NEVER_SENT as exc:
        raise OrthancUnavailable(detail=type(exc).__name__) from exc
    except httpx.TimeoutException as exc:
        raise OrthancTimedOut(detail=type(exc).__name__) from exc
    except (httpx.HTTPError, httpx.StreamError) as exc:
        raise OrthancOutcomeUnknown(detail=type(exc).__name__) from exc


def raise_for_status(status: int, body: bytes = b"") -> None:
    """Raise the error that a status of Orthanc stands for; 2xx passes.

    Redirects are errors: Orthanc answers them for placeholder pictures only.

    Args:
        status: HTTP status.
        body: Of the answer, where it was read: of an internal error it names the kind.
    """
    if HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES:
        return
    if status == HTTPStatus.INTERNAL_SERVER_ERROR:
        raise _internal_error(_error_code(body))
    error = _ERRORS_BY_STATUS.get(status, OrthancError)
    raise error(detail=f"Orthanc answered {status}")


def _internal_error(code: int | None) -> OrthancError:
    detail = "Orthanc answered 500" + ("" if code is None else f", its error {code}")
    if code == _FULL_STORAGE:
        return OrthancFull(detail=detail)
    if code == _CANNOT_WRITE_FILE:
        return OrthancFull(
            "Orthanc can't write to its disk, which may be full. Ask its administrator.",
            detail=detail,
        )
    if code in _SQLITE:
        return OrthancError(
            "Orthanc can't use its own database; its disk may be full. Ask its administrator.",
            detail=detail,
        )
    return OrthancError(detail=detail)


def _error_code(body: bytes) -> int | None:
    """Read Orthanc's own error code; None where there is none."""
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    code = answer.get("OrthancStatus") if isinstance(answer, dict) else None
    return code if isinstance(code, int) else None


async def send(
    http: httpx.AsyncClient, request: httpx.Request, *, only_reads: bool, stream: bool = False
) -> httpx.Response:
    """Send a request; again at once when it only reads and its kept connection was closed.

    Orthanc closes connections that were idle for a while, and a request may cross that.

    Args:
        http: The HTTP client of `open_http_client`.
        request: The request.
        only_reads: Orthanc may be asked twice.
        stream: Leave the body to be read by the caller.
    """
    events: set[str] = set()

    async def note(event: str, _: object) -> None:
        events.add(event)

    request.extensions["trace"] = note
    try:
        return await http.send(request, stream=stream)
    except (httpx.ReadError, httpx.RemoteProtocolError) as exc:
        if not only_reads or events & {_OPENED, _ANSWERED}:
            raise
        try:
            return await http.send(request, stream=stream)
        except _NEVER_SENT:
            # Orthanc is away, perhaps because of the first request: that one says more.
            raise exc from None


_ROUTE_WORD = re.compile(r"[a-z]+(?:-[a-z]+)?[0-9]?")
"""A word of Orthanc's routes: `bulk-content`, `md5`."""

_NAMED = frozenset({"labels", "modalities"})
"""What follows these is a name that somebody chose."""


def template_of(path: str) -> str:
    """Return a path without identifiers, names and parameters, for metrics and traces."""
    parts: list[str] = []
    for part in path.partition("?")[0].split("/"):
        is_word = not part or _ROUTE_WORD.fullmatch(part) is not None
        is_name = bool(parts) and parts[-1] in _NAMED
        parts.append(part if is_word and not is_name else "{id}")
    return "/".join(parts)


@contextmanager
def observed(method: str, path: str) -> Iterator[None]:
    """Time one call, and show it in the trace of the operation that makes it."""
    call = f"{method} {template_of(path)}"
    with TRACING.span(f"Orthanc {call}", kind="CLIENT"), timed(ORTHANC_SECONDS, call):
        yield


@asynccontextmanager
async def streamed(
    http: httpx.AsyncClient, path: str, *, limits: httpx.Timeout | None = None
) -> AsyncIterator[httpx.Response]:
    """GET a body that is read while it arrives."""
    request = http.build_request("GET", path, timeout=limits or timeout_of(None))
    with translated_faults():
        with observed("GET", path):
            opened = await send(http, request, only_reads=True, stream=True)
        async with aclosing(opened) as response:
            raise_for_status(response.status_code)
            yield response
