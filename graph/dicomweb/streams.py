"""Answers in parts (RFC 2387)."""

import secrets


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
