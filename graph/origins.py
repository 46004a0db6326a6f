"""Which web pages of other origins may use this server."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from services.settings import Settings

_LOCALHOST = r"https?://(localhost|127\.0\.0\.1|\[::1\])(:\d{1,5})?"
"""The development server of a front end, on any port of this machine."""


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
