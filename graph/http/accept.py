"""What a caller accepts: `Accept` and `Accept-Encoding` (RFC 9110 12.5), as DICOMweb uses them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from services.errors import Error, InvalidInput

_MAX_CHARACTERS = 4096
_MAX_RANGES = 64

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"  # noqa: S105  # a token of RFC 9110 5.6.2, no secret
_PARAMETER = re.compile(
    rf'\s*;\s*(?P<name>{_TOKEN})\s*=\s*(?:"(?P<quoted>[^"\\]*)"|(?P<plain>[^\s;,"]+))'
)
"""Values with a slash need quotes, and several clients send `type=application/dicom` without."""

_RANGE = re.compile(rf"\s*(?P<type>{_TOKEN})/(?P<subtype>{_TOKEN})")
_END = re.compile(r"\s*(?:,|$)")
_QUALITY = re.compile(r"(?:0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)")


class NotAcceptable(Error):
    """The resource has no representation that the caller accepts."""

    code = "NOT_ACCEPTABLE"


@dataclass(frozen=True, slots=True)
class MediaRange:
    """One media range of `Accept`.

    Attributes:
        media_type: In lower case, as `image/png`, `image/*` or `*/*`.
        parameters: By lower-case name, without `q`.
        quality: 0 to 1; 0 excludes the range.
    """

    media_type: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    quality: float = 1.0

    def matches(self, media_type: str) -> bool:
        """Return whether a media type, in lower case, is in this range."""
        return _is_in(media_type, self.media_type)

    @property
    def is_multipart(self) -> bool:
        """Whether it is `multipart/related`."""
        return self.media_type == "multipart/related"

    @property
    def part_type(self) -> str:
        """The media type of the parts (RFC 2387 3.1), in lower case; `*/*` when it is absent."""
        return self.parameters.get("type", "*/*").lower()

    def matches_parts(self, media_type: str) -> bool:
        """Return whether parts of a media type are accepted."""
        return _is_in(media_type, self.part_type)


def _is_in(media_type: str, range_: str) -> bool:
    if range_ in {"*/*", media_type}:
        return True
    main, _, sub = range_.partition("/")
    return sub == "*" and media_type.partition("/")[0] == main


ANYTHING = (MediaRange("*/*"),)
"""What a caller without `Accept` accepts (RFC 9110 12.5.1)."""


def parse_accept(text: str | None) -> Sequence[MediaRange]:
    """Read an `Accept` header, or the query parameter `accept` (PS3.18 8.3.3.1).

    Args:
        text: None or blank: everything is accepted.

    Returns:
        The ranges, best quality first, otherwise in their order; those of quality 0 are left out.

    Raises:
        InvalidInput: It is malformed.
    """
    if text is None or not text.strip():
        return ANYTHING
    if len(text) > _MAX_CHARACTERS:
        raise InvalidInput("Accept is too long.")
    ranges: list[MediaRange] = []
    position = 0
    while position < len(text):
        if (empty := _END.match(text, position)) and empty.end() > position:
            position = empty.end()
            continue
        read = _RANGE.match(text, position)
        if read is None or len(ranges) >= _MAX_RANGES:
            raise InvalidInput("Accept is malformed.")
        position = read.end()
        parameters: dict[str, str] = {}
        while (parameter := _PARAMETER.match(text, position)) is not None:
            value = parameter["quoted"] if parameter["quoted"] is not None else parameter["plain"]
            parameters[parameter["name"].lower()] = value
            position = parameter.end()
        end = _END.match(text, position)
        if end is None:
            raise InvalidInput("Accept is malformed.")
        position = end.end()
        quality = parameters.pop("q", "1")
        if not _QUALITY.fullmatch(quality):
            raise InvalidInput("Accept is malformed.")
        media_type = f"{read['type']}/{read['subtype']}".lower()
        ranges.append(MediaRange(media_type, parameters, float(quality)))
    ranges.sort(key=lambda one: -one.quality)
    return [one for one in ranges if one.quality > 0]


def choose(accepted: Sequence[MediaRange], offered: Sequence[str]) -> str:
    """Choose the media type of an answer.

    Args:
        accepted: What the caller accepts, best first.
        offered: What can be answered, best first.

    Raises:
        NotAcceptable: The caller accepts none of them.
    """
    for one in accepted:
        for media_type in offered:
            if one.matches(media_type):
                return media_type
    raise NotAcceptable(f"This is available as {', '.join(offered)}.")


def accepts_gzip(accept_encoding: str | None) -> bool:
    """Return whether `Accept-Encoding` allows gzip."""
    for part in (accept_encoding or "").lower().split(","):
        name, _, parameters = part.partition(";")
        if name.strip() in {"gzip", "*"}:
            return not re.fullmatch(r"\s*q\s*=\s*0(\.0*)?\s*", parameters)
    return False
