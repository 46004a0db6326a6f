"""What changes the picture of a frame, and its one canonical spelling in a URL."""

import math
import re
from dataclasses import dataclass
from typing import Self

from services.errors import InvalidInput

MAX_SIZE_LIMIT = 8192
"""Longest side that can be asked for, in pixels: twice the widest display that is sold."""

MIN_WINDOW_WIDTH = 1.0
"""PS3.3 C.11.2.1.2.1: Window Width shall be 1 or more for LINEAR, the function of most files."""

_NUMBER = r"-?[0-9][0-9.e+-]*"
_SPELLING = re.compile(
    rf"(?:default|(?P<full>full)|w(?P<center>{_NUMBER})x(?P<width>{_NUMBER}))(?:-s(?P<size>[0-9]+))?"
)


@dataclass(frozen=True, slots=True)
class FrameVariant:
    """One way to show a frame.

    Attributes:
        window_center: In output units of the modality LUT (PS3.3 C.11.2.1.2); None for the window
            of the file, the full range where it has none.
        window_width: In the same units; given when and only when `window_center` is.
        full_range: Minimum to maximum of the frame's own stored values.
        max_size: Longest side in pixels, 1 to 8192; smaller frames keep their size. None: as it is.
    """

    window_center: float | None = None
    window_width: float | None = None
    full_range: bool = False
    max_size: int | None = None

    def __post_init__(self) -> None:
        """Refuse what makes no sense.

        Raises:
            InvalidInput: With a sentence for the caller.
        """
        if (self.window_center is None) != (self.window_width is None):
            raise InvalidInput("windowCenter and windowWidth are given together or not at all.")
        if self.window_center is not None and self.window_width is not None:
            self._check_window(self.window_center, self.window_width)
        if self.max_size is not None and not 1 <= self.max_size <= MAX_SIZE_LIMIT:
            raise InvalidInput(f"maxSize is 1 to {MAX_SIZE_LIMIT} pixels.")

    def _check_window(self, center: float, width: float) -> None:
        if self.full_range:
            raise InvalidInput("fullRange and a window exclude each other.")
        if not (math.isfinite(center) and math.isfinite(width)):
            raise InvalidInput("windowCenter and windowWidth are finite numbers.")
        if width < MIN_WINDOW_WIDTH:
            raise InvalidInput("windowWidth is 1 or more (PS3.3 C.11.2.1.2).")

    @property
    def text(self) -> str:
        """The canonical spelling: `default`, `full`, `w40x400`, `w-600.5x1500-s256`."""
        if self.window_center is not None and self.window_width is not None:
            what = f"w{_spell(self.window_center)}x{_spell(self.window_width)}"
        else:
            what = "full" if self.full_range else "default"
        return what if self.max_size is None else f"{what}-s{self.max_size}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a canonical spelling.

        Raises:
            InvalidInput: It is none, or not the canonical one.
        """
        match = _SPELLING.fullmatch(text)
        if match is None:
            raise InvalidInput("That is no frame variant.")
        try:
            variant = cls(
                window_center=None if match["center"] is None else float(match["center"]),
                window_width=None if match["width"] is None else float(match["width"]),
                full_range=match["full"] is not None,
                max_size=None if match["size"] is None else int(match["size"]),
            )
        except ValueError as exc:
            raise InvalidInput("That is no frame variant.") from exc
        if variant.text != text:
            raise InvalidInput("That is not the canonical spelling of a frame variant.")
        return variant


def _spell(number: float) -> str:
    # Adding zero turns -0.0 into 0.0: one value, one spelling.
    return repr(float(number) + 0.0).removesuffix(".0")
