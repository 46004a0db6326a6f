"""A million instances in 10,000 studies beside 10,000 instances in 100."""

import itertools
import json
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from services.embedded.mongod import run_mongod
from tests.benchmarks.command_counts import asked_by
from tests.benchmarks.lean_client import LeanClient, open_lean_client
from tests.benchmarks.list_query import FILTERS, PAGE_SIZE, list_body
from tests.benchmarks.measurement import Bound, Line, Row, alternating_medians
from tests.benchmarks.stage import open_index_stage
from tests.benchmarks.synthetic_index import IndexSize, study_uid
from tests.benchmarks.tree_query import TREE

_LARGE = IndexSize(studies=10_000, series=4, instances=25)
_SMALL = IndexSize(studies=100, series=4, instances=25)
_RUNS = 25
_LEAST_RATIO = 1 / 1.5

_Ask = Callable[[], Awaitable[object]]


async def run() -> list[Line]:
    """Measure list, filters and tree through HTTP, then look at the plans of their commands."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            run_mongod(Path(folder)) as mongod,
            open_index_stage(mongod, _LARGE) as large,
            open_index_stage(mongod, _SMALL) as small,
            open_lean_client(large.url, {}, connections=1) as large_client,
            open_lean_client(small.url, {}, connections=1) as small_client,
        ):
            lines: list[Line] = []
            unindexed = 0
            rivals = _cases(small_client, _SMALL)
            for case, ask in _cases(large_client, _LARGE).items():
                times = await alternating_medians([ask, rivals[case]], runs=_RUNS)
                lines.append(_row(case, *times))
                unindexed += len((await asked_by(large, ask)).unindexed)
    case = "commands of these without an index, by explain"
    return [*lines, Bound(case=case, value=unindexed, unit="", at_most=0)]


def _row(case: str, large: float, small: float) -> Row:
    return Row(
        case=f"{case}, of {_count(_LARGE)} instances",
        ours_seconds=large,
        rival=f"of {_count(_SMALL)}",
        rival_seconds=small,
        goal=_LEAST_RATIO,
    )


def _cases(client: LeanClient, size: IndexSize) -> dict[str, _Ask]:
    lists = {f"first {PAGE_SIZE} studies": partial(client.post, "/graphql", list_body())}
    filters = {
        f"filter by {name}": partial(client.post, "/graphql", list_body(filter_=each))
        for name, each in FILTERS.items()
    }
    return {**lists, **filters, f"tree of {size.series * size.instances}": _trees(client, size)}


def _trees(client: LeanClient, size: IndexSize) -> _Ask:
    """Ask for another study each time, from all over the index."""
    numbers = itertools.cycle(range(0, size.studies, size.studies // _SMALL.studies))

    async def ask() -> None:
        variables = {"uid": study_uid(next(numbers))}
        body = json.dumps({"query": TREE, "variables": variables}).encode()
        await client.post("/graphql", body)

    return ask


def _count(size: IndexSize) -> str:
    return f"{size.studies * size.series * size.instances:,}"
