"""`first` and `offset` of plain lists."""

from services.errors import InvalidInput
from services.tree import Slice


def slice_of(first: int | None, offset: int) -> Slice:
    """Check the arguments of a plain list.

    Args:
        first: How many at most; None for all.
        offset: 0-based position of the first.

    Raises:
        InvalidInput: One is negative.
    """
    if offset < 0 or (first is not None and first < 0):
        raise InvalidInput("`first` and `offset` are 0 or more.")
    return Slice(offset, first)
