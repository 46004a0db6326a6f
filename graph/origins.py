"""Which web pages of other origins may use this server."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from starlette.middleware.cors import CORSMiddleware
from starlette.types import Message, Receive, Scope, Send

from graph.headers import header_values
from services.settings import Settings

_LOCALHOST = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?"
"""The development server of a front end, on any port of this machine."""

REQUEST_HEADERS = (
    "Authorization",
    "Content-Type",
    "If-None-Match",
    "GraphQL-Preflight",
    "Apollo-Require-Preflight",
    "X-Apollo-Operation-Name",
    "apollographql-client-name",
    "apollographql-client-version",
)
"""What pages of allowed origins may send; Apollo Client tells its name by the last two."""


@dataclass(frozen=True, slots=True)
class AllowedOrigins:
    """The rule, for CORS, WebSockets and cross-site uploads alike.

    Attributes:
        origins: Exact origins, as `https://viewer.example.org`.
        pattern: A regular expression of further ones, None for none.
    """

    origins: Sequence[str]
    pattern: str | None = None

    @classmethod
    def from_settings(cls, settings: Settings) -> "AllowedOrigins":
        """Take CORS_ALLOWED_ORIGINS; unset and all embedded means any localhost port."""
        if settings.cors_allowed_origins is not None:
            return cls(tuple(origin.rstrip("/") for origin in settings.cors_allowed_origins))
        return cls((), _LOCALHOST if settings.is_fully_embedded else None)

    def allow(self, origin: str) -> bool:
        """Tell whether a page of this origin may read answers and open WebSockets.

        Args:
            origin: The `Origin` header: scheme, host and port.
        """
        if origin in self.origins or "*" in self.origins:
            return True
        return self.pattern is not None and re.fullmatch(self.pattern, origin) is not None


class CrossOrigin(CORSMiddleware):
    """Starlette's CORS, for those requests that have an origin.

    Pictures in a page have none, and all that their answers need is `Vary`.
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
    """Return headers that tell caches that another origin may get another answer."""
    own = [*headers]
    names = [value for name, value in own if name == b"vary"]
    if names:
        own = [header for header in own if header[0] != b"vary"]
    own.append((b"vary", b", ".join([*names, b"Origin"])))
    return own
