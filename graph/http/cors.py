"""Which web pages of other origins may use this server."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection
from starlette.types import Message, Receive, Scope, Send

from services.errors import Forbidden
from services.settings import Settings

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?", re.ASCII)
_SECURE = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


def base_url_of(connection: HTTPConnection, public_url: str | None) -> str:
    """Return scheme, host and path under which the caller reaches this server.

    Args:
        connection: The request or WebSocket.
        public_url: PUBLIC_URL; it has precedence over the request.

    Returns:
        The address without a slash at its end. If the `Host` header is not valid, it is the address
        on which the server listens.
    """
    if public_url is not None:
        return public_url
    scope = connection.scope
    host = connection.headers.get("host", "")
    if not _HOST.fullmatch(host):
        name, port = scope.get("server") or ("127.0.0.1", 80)
        host = name if port is None else f"{name}:{port}"
    return f"{_SECURE[scope['scheme']]}://{host}{scope.get('root_path', '').rstrip('/')}"


def origin_of(url: str) -> str:
    """Return scheme, host and port of a URL, as browsers write them in `Origin`."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def header_values(scope: Scope, name: bytes) -> list[str]:
    """Return all values of a header of a request, in their order.

    Args:
        scope: The request's.
        name: In lower case.
    """
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


_LOCALHOST = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?"
"""The development server of a front end, on any local port."""

REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "If-None-Match",
    "If-Range",
    "Range",
    "GraphQL-Preflight",
    "Apollo-Require-Preflight",
    "X-Apollo-Operation-Name",
    "Upload-Id",
    "apollographql-client-name",
    "apollographql-client-version",
    "traceparent",
    "tracestate",
    "baggage",
    "sentry-trace",
)
"""Headers that pages of allowed origins may send, besides CORS_ALLOWED_HEADERS. Apollo Client sends
its name and version in two of them; the last four are for tracing (W3C Trace Context, Sentry)."""


EXPOSED_HEADERS = (
    "Accept-Ranges",
    "Content-Disposition",
    "Content-Range",
    "ETag",
    "Retry-After",
    "Warning",
    "X-Request-ID",
)
"""Headers of responses that pages of allowed origins may read, besides those always allowed."""


@dataclass(frozen=True, slots=True)
class AllowedOrigins:
    """The rule, for CORS, WebSockets and cross-site uploads alike.

    Attributes:
        origins: Exact origins, as `https://viewer.example.org`.
        pattern: A regular expression of further origins, or None.
    """

    origins: Sequence[str]
    pattern: str | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "AllowedOrigins":
        """Read CORS_ALLOWED_ORIGINS; if unset and all stores are embedded: any port of localhost.

        The viewer of OHIF_URL is also allowed, because links of shares lead to it.
        """
        viewer = () if settings.ohif_url is None else (origin_of(settings.ohif_url),)
        if settings.cors_allowed_origins is not None:
            named = (origin.rstrip("/") for origin in settings.cors_allowed_origins)
            return cls((*named, *viewer))
        return cls(viewer, _LOCALHOST if settings.is_fully_embedded else None)

    def allow(self, origin: str) -> bool:
        """Return whether a page of this origin may read responses and open WebSockets.

        Args:
            origin: The `Origin` header: scheme, host and port.
        """
        if origin in self.origins or "*" in self.origins:
            return True
        return self.pattern is not None and re.fullmatch(self.pattern, origin) is not None


_SAME_SITE = frozenset({"same-origin", "none"})
"""`Sec-Fetch-Site` of pages of this server, and of addresses that a user typed or opened."""


def require_allowed_origin(
    connection: HTTPConnection, origins: AllowedOrigins, *, public_url: str | None
) -> None:
    """Refuse requests that a browser sends for a page of an origin that is not allowed.

    Browsers send forms and load images across origins without a preflight. Other programs send
    neither `Origin` nor `Sec-Fetch-Site`.

    Args:
        connection: The request.
        origins: The rule.
        public_url: PUBLIC_URL.

    Raises:
        Forbidden: The page is of another origin.
    """
    origin = connection.headers.get("origin")
    if origin is None:
        is_allowed = connection.headers.get("sec-fetch-site", "none") in _SAME_SITE
    else:
        own = origin_of(base_url_of(connection, public_url))
        is_allowed = origin == own or origins.allow(origin)
    if not is_allowed:
        raise Forbidden("Pages of this origin may not use this server. See CORS_ALLOWED_ORIGINS.")


class CrossOriginMiddleware(CORSMiddleware):
    """Starlette's CORS for requests with an origin.

    Requests without one, such as pictures of a page, only get `Vary`, which takes less time.
    """

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or header_values(scope, b"origin"):
            await super().__call__(scope, receive, send)
            return

        async def send_varying(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = varying(message.get("headers", ()))
            await send(message)

        await self.app(scope, receive, send_varying)


def varying(headers: Iterable[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """Return headers with which caches keep the responses for different origins separate."""
    own = [*headers]
    names = [value for name, value in own if name == b"vary"]
    if names:
        own = [header for header in own if header[0] != b"vary"]
    own.append((b"vary", b", ".join([*names, b"Origin"])))
    return own
