"""How a case is measured and told."""

import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: this server beside a rival in the same run.

    Attributes:
        case: What was done.
        ours_seconds: Median of this server.
        rival: Who was measured beside it.
        rival_seconds: Median of the rival in the same run.
        goal: Least `ratio` that is hoped for.
    """

    case: str
    ours_seconds: float
    rival: str
    rival_seconds: float
    goal: float

    @property
    def ratio(self) -> float:
        """How many times faster than the rival this server is."""
        return self.rival_seconds / self.ours_seconds

    def to_json(self) -> dict[str, Any]:
        """Return the row with its ratio and whether the goal is met."""
        return asdict(self) | {"ratio": round(self.ratio, 3), "met": self.ratio >= self.goal}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """One line of the table: a value that must not be exceeded.

    Attributes:
        case: What was measured.
        value: In `unit`.
        unit: What it is measured in; "" for a plain number.
        at_most: The goal.
    """

    case: str
    value: float
    unit: Literal["s", "MB", ""]
    at_most: float

    def to_json(self) -> dict[str, Any]:
        """Return the row with whether the goal is met."""
        return asdict(self) | {"value": round(self.value, 4), "met": self.value <= self.at_most}


Line = Row | Bound


async def median_seconds(
    operation: Callable[[], Awaitable[object]], *, runs: int, warm_up: int = 1
) -> float:
    """Time an operation several times, one after the other.

    Args:
        operation: What to time.
        runs: How often it is timed.
        warm_up: How often it is done before.
    """
    for _ in range(warm_up):
        await operation()
    return statistics.median([await seconds_of(operation) for _ in range(runs)])


async def seconds_of(operation: Callable[[], Awaitable[object]]) -> float:
    """Time an operation once, in seconds."""
    started = time.perf_counter()
    await operation()
    return time.perf_counter() - started


async def alternating_medians(
    operations: Sequence[Callable[[], Awaitable[object]]], *, runs: int
) -> list[float]:
    """Time rivals in turn, so that a busy moment of the machine meets all of them.

    Args:
        operations: What to time; each is done once before.
        runs: How often each is timed.

    Returns:
        The medians in seconds, in the order of the operations.
    """
    for operation in operations:
        await operation()
    times: list[list[float]] = [[] for _ in operations]
    for _ in range(runs):
        for operation, taken in zip(operations, times, strict=True):
            taken.append(await seconds_of(operation))
    return [statistics.median(taken) for taken in times]
