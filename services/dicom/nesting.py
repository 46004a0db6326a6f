"""The sequences and items around an element, and how far the element may reach (PS3.5 7.5)."""

from dataclasses import dataclass
from typing import NoReturn

from services.dicom.element_bytes import bytes_texts, tag_text
from services.errors import FileRejected


@dataclass(slots=True)
class OpenContainer:
    """A sequence or an item that is open; `end` is None when a delimiter closes it."""

    is_sequence: bool
    end: int | None
    children: int = 0
    """Items of a sequence, or elements of an item, so far."""


class Nesting:
    """The open sequences and items, and how far the elements in them may reach.

    Attributes:
        top: The innermost open sequence or item, None at the top level of the dataset.
        is_implicit_vr: Whether the elements in it have no explicit VR.
        deepest: Number of sequences around the deepest element so far.
    """

    def __init__(self, *, file_size: int, is_implicit_vr: bool, sequence_max_depth: int) -> None:
        self.top: OpenContainer | None = None
        self.deepest = 0
        self._file_size = file_size
        self.is_implicit_vr = is_implicit_vr
        self._sequence_max_depth = sequence_max_depth
        self._outer: list[tuple[OpenContainer | None, bool]] = []
        self._depth = 0

    def open(self, container: OpenContainer, *, is_implicit_vr: bool) -> None:
        """Enter a sequence or an item.

        Raises:
            FileRejected: NESTED_TOO_DEEP.
        """
        if container.is_sequence:
            self._depth += 1
            self.deepest = max(self.deepest, self._depth)
            if self._depth > self._sequence_max_depth:
                message = (
                    f"The sequences of this file are nested deeper than "
                    f"{self._sequence_max_depth} levels."
                )
                raise FileRejected("NESTED_TOO_DEEP", message)
        self._outer.append((self.top, self.is_implicit_vr))
        self.top, self.is_implicit_vr = container, is_implicit_vr

    def close(self) -> None:
        """Leave the innermost sequence or item."""
        if self.top is not None:
            self._depth -= self.top.is_sequence
            self.top, self.is_implicit_vr = self._outer.pop()

    def reach(self) -> int:
        """Return the offset that no value may pass: the end of its item or of the file."""
        return self._file_size if self.top is None or self.top.end is None else self.top.end

    def check_end(self, offset: int, length: int, tag: tuple[int, int]) -> None:
        """Check that a value ends within the file and within the item around it.

        Raises:
            FileRejected: TRUNCATED or MALFORMED.
        """
        end = offset + length
        if end > self._file_size:
            self._too_short(offset, length, tag)
        inner = self.top.end if self.top is not None else None
        if inner is not None and end > inner:
            message = f"Element {tag_text(*tag)} is longer than the item around it."
            raise FileRejected("MALFORMED", message)

    def _too_short(self, offset: int, length: int, tag: tuple[int, int]) -> NoReturn:
        announced, present = bytes_texts(length, max(0, self._file_size - offset))
        message = (
            f"The file ends in the middle of element {tag_text(*tag)}: {announced} were announced, "
            f"{present} are there."
        )
        raise FileRejected("TRUNCATED", message)

    def ends_within(self) -> str:
        """Return a sentence that says what is incomplete in a file that ends here."""
        if self.top is None:
            return "The file was cut off: it ends within the head of an element."
        kind = "sequence" if self.top.is_sequence else "item of a sequence"
        return f"The file ends in the middle of a {kind}."
