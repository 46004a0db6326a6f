"""Range requests (RFC 9110 14) for data that can be read from any position."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

_RANGE = re.compile(r"bytes=(?P<begin>[0-9]{0,18})-(?P<end>[0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Span:
    """The requested part, from `begin` up to `end`; empty if the requested range is outside.

    Attributes:
        size: Of the whole.
    """

    begin: int
    end: int
    size: int

    @classmethod
    def asked(cls, headers: Mapping[str, str], size: int, *, etag: str) -> Self:
        """Read `Range` and `If-Range`; other units and several ranges are ignored (RFC 9110 14.2).

        Args:
            headers: Of the request.
            size: Of the whole, in bytes.
            etag: Of the whole, strong, with its quotes.
        """
        match = _RANGE.fullmatch(headers.get("range", "").strip())
        if match is None or not (match["begin"] or match["end"]):
            return cls(0, size, size)
        # The client has a part of another version, which must not be combined with this one.
        if headers.get("if-range", etag).strip() != etag:
            return cls(0, size, size)
        if not match["begin"]:
            return cls(max(0, size - int(match["end"])), size, size)
        begin = int(match["begin"])
        end = min(size, int(match["end"]) + 1) if match["end"] else size
        return cls(begin, max(begin, end), size)

    def __len__(self) -> int:
        """Return the number of bytes."""
        return self.end - self.begin

    @property
    def status(self) -> HTTPStatus:
        """Of the answer."""
        if not len(self):
            return HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
        return HTTPStatus.OK if len(self) == self.size else HTTPStatus.PARTIAL_CONTENT

    @property
    def headers(self) -> dict[str, str]:
        """Of the answer."""
        headers = {"Accept-Ranges": "bytes"}
        if self.status is HTTPStatus.PARTIAL_CONTENT:
            headers["Content-Range"] = f"bytes {self.begin}-{self.end - 1}/{self.size}"
        elif self.status is HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            headers["Content-Range"] = f"bytes */{self.size}"
        return headers
