"""Conditional requests (RFC 9110 13) by entity tags."""

from starlette.types import Scope

from graph.http.cors import header_values


def names_tag(scope: Scope, etag: str) -> bool:
    """Return whether If-None-Match names an entity tag (RFC 9110 13.1.2), weakly compared.

    Args:
        scope: Of the request.
        etag: With its quotes, and with `W/` if it is weak.
    """
    given = header_values(scope, b"if-none-match")
    if not given:
        return False
    tags = [tag.strip().removeprefix("W/") for tag in ",".join(given).split(",")]
    return tags == ["*"] or etag.removeprefix("W/") in tags
