"""Answers in parts, and answers that are passed on while they arrive."""

import re
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from http import HTTPStatus
from typing import Self

from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send


class Multipart:
    """A `multipart/related` body (RFC 2387).

    Args:
        part_type: Media type of the parts.
    """

    def __init__(self, part_type: str) -> None:
        self._boundary = secrets.token_hex(16)
        self.media_type = f'multipart/related; type="{part_type}"; boundary={self._boundary}'
        self._is_first = True

    def head(self, content_type: str) -> bytes:
        """Return what stands before a part.

        Args:
            content_type: Of the part, with its parameters.
        """
        before = "" if self._is_first else "\r\n"
        self._is_first = False
        return f"{before}--{self._boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode()

    def end(self) -> bytes:
        """Return what stands behind the last part."""
        return f"\r\n--{self._boundary}--\r\n".encode()


class PassedOn(StreamingResponse):
    """Sends what a generator yields; whatever the generator holds is closed with the answer."""

    def __init__(
        self,
        parts: AsyncGenerator[bytes, None],
        first: bytes,
        *,
        status: int = HTTPStatus.OK,
        headers: Mapping[str, str],
        media_type: str,
    ) -> None:
        super().__init__(_chained(first, parts), status, headers, media_type)
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""
        async with aclosing(self._parts):
            await super().__call__(scope, receive, send)


async def passed_on(
    parts: AsyncGenerator[bytes, None],
    *,
    status: int = HTTPStatus.OK,
    headers: Mapping[str, str],
    media_type: str,
) -> Response:
    """Begin an answer: what goes wrong before its first bytes is an error with a status.

    What goes wrong later breaks the connection, so that half an answer never looks complete.

    Raises:
        Error: Whatever the generator raises first.
    """
    try:
        first = await anext(parts, b"")
    except BaseException:
        await parts.aclose()
        raise
    return PassedOn(parts, first, status=status, headers=headers, media_type=media_type)


async def _chained(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


_RANGE = re.compile(r"bytes=(?P<begin>[0-9]{0,18})-(?P<end>[0-9]{0,18})")


@dataclass(frozen=True, slots=True)
class Span:
    """A part of some bytes, from `begin` up to `end`; empty where the caller's is outside.

    Attributes:
        size: Of the whole.
    """

    begin: int
    end: int
    size: int

    @classmethod
    def asked(cls, text: str | None, size: int) -> Self:
        """Read `Range` (RFC 9110 14.2); all but a single range of bytes is ignored, as it may be.

        Args:
            text: The header.
            size: Of the whole, in bytes.
        """
        match = None if text is None else _RANGE.fullmatch(text.strip())
        if match is None or not (match["begin"] or match["end"]):
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
