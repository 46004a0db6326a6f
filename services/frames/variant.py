"""What changes the picture of a frame, and its one canonical spelling in a URL."""

import math
import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Self

from services.errors import InvalidInput

MAX_SIZE_LIMIT = 8192
"""Longest side that can be asked for, in pixels: twice the widest display that is sold."""

SIGNIFICANT_DIGITS = 6
"""Digits of a window: finer steps change no grey level, and more spellings would be more pictures
that the owner of one URL can ask for."""

WINDOW_LIMIT = 1e10
"""Largest centre and width: beyond those of 32-bit values without a slope nothing is stored."""

WINDOW_STEP = 1e-6
"""Smallest width: parametric maps in SI units (diffusion in mm2/s) have windows of 0.001."""

_NUMBER = r"-?[0-9]{1,16}(?:\.[0-9]{1,16})?"
_SPELLING = re.compile(
    rf"(?:default|(?P<full>full)|w(?P<center>{_NUMBER})x(?P<width>{_NUMBER}))"
    r"(?:-s(?P<size>[1-9][0-9]{0,3}))?\.(?P<format>png|jpg)"
)


class PictureFormat(StrEnum):
    """How a picture is encoded; the value is the extension of its URL."""

    PNG = "png"
    JPEG = "jpg"

    @property
    def media_type(self) -> str:
        """The media type, such as `image/png`."""
        return f"image/{self.name.lower()}"


@dataclass(frozen=True, slots=True)
class FrameVariant:
    """One way to show a frame.

    Centre and width are rounded to 6 significant digits.

    Attributes:
        window_center: In output units of the modality LUT (PS3.3 C.11.2.1.2); None for the window
            of the file, the full range where it has none.
        window_width: In the same units, above 0; given when and only when `window_center` is.
        full_range: Minimum to maximum of the frame's own values.
        max_size: Longest side in pixels, 1 to 8192; smaller frames keep their size. None: as it is.
        picture_format: JPEG is lossy: for previews and cine.
        quality: Of JPEG, 1 to 100; None for 90. It has no spelling in URLs.
    """

    window_center: float | None = None
    window_width: float | None = None
    full_range: bool = False
    max_size: int | None = None
    picture_format: PictureFormat = PictureFormat.PNG
    quality: int | None = None

    def __post_init__(self) -> None:
        """Check and round the arguments.

        Raises:
            InvalidInput: With a sentence for the caller.
        """
        if (self.window_center is None) != (self.window_width is None):
            missing = "windowCenter" if self.window_center is None else "windowWidth"
            message = "Give windowCenter and windowWidth together, or neither."
            raise InvalidInput(message, argument=missing)
        if self.window_center is not None and self.window_width is not None:
            self._check_window(self.window_center, self.window_width)
            object.__setattr__(self, "window_center", float(_spell(self.window_center)))
            object.__setattr__(self, "window_width", float(_spell(self.window_width)))
        if self.max_size is not None and not 1 <= self.max_size <= MAX_SIZE_LIMIT:
            message = f"maxSize must be 1 to {MAX_SIZE_LIMIT} pixels."
            raise InvalidInput(message, argument="maxSize")
        if self.quality is not None and not 1 <= self.quality <= 100:  # noqa: PLR2004  # per cent
            raise InvalidInput("quality must be 1 to 100.", argument="quality")

    def _check_window(self, center: float, width: float) -> None:
        if self.full_range:
            message = "Give either fullRange or a window, not both."
            raise InvalidInput(message, argument="fullRange")
        for name, value in (("windowCenter", center), ("windowWidth", width)):
            if not math.isfinite(value):
                raise InvalidInput(
                    "windowCenter and windowWidth must be finite numbers.", argument=name
                )
        if width <= 0:
            raise InvalidInput("windowWidth must be above 0.", argument="windowWidth")
        if width < WINDOW_STEP or max(abs(center), width) > WINDOW_LIMIT:
            is_center = WINDOW_STEP <= width <= WINDOW_LIMIT
            raise InvalidInput(
                "windowWidth must be 0.000001 or more, and both at most 10000000000.",
                argument="windowCenter" if is_center else "windowWidth",
            )

    @property
    def is_as_stored(self) -> bool:
        """Whether the window is the file's or the full range, in full size and usual quality."""
        return self.window_center is None and self.max_size is None and self.quality is None

    @property
    def text(self) -> str:
        """The canonical spelling: `default.png`, `full.jpg`, `w-600.5x1500-s256.png`."""
        if self.window_center is not None and self.window_width is not None:
            what = f"w{_spell(self.window_center)}x{_spell(self.window_width)}"
        else:
            what = "full" if self.full_range else "default"
        size = "" if self.max_size is None else f"-s{self.max_size}"
        return f"{what}{size}.{self.picture_format}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a canonical spelling.

        Raises:
            InvalidInput: The text is not the canonical spelling of a variant.
        """
        match = _SPELLING.fullmatch(text)
        if match is None:
            raise InvalidInput("This is not a frame variant.")
        variant = cls(
            window_center=None if match["center"] is None else float(match["center"]),
            window_width=None if match["width"] is None else float(match["width"]),
            full_range=match["full"] is not None,
            max_size=None if match["size"] is None else int(match["size"]),
            picture_format=PictureFormat(match["format"]),
        )
        if variant.text != text:
            raise InvalidInput("This is not the canonical spelling of a frame variant.")
        return variant


def _spell(number: float) -> str:
    """Spell a number as JavaScript's `String(Number(number.toPrecision(6)))`, without exponent."""
    if abs(number) < WINDOW_STEP:
        return "0"
    text = format(Decimal(f"{number:.{SIGNIFICANT_DIGITS}g}"), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text
