"""The study list of 10,000 studies beside the same list of 100."""

import json
import tempfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from services.embedded.mongod import run_mongod
from tests.benchmarks.command_counts import asked_by
from tests.benchmarks.lean_client import LeanClient, open_lean_client
from tests.benchmarks.list_query import FILTERS, PAGE_SIZE, list_body
from tests.benchmarks.measurement import Bound, Line, Row, alternating_medians
from tests.benchmarks.stage import IndexStage, open_index_stage
from tests.benchmarks.synthetic_index import IndexSize

_MANY = 10_000
_FEW = 100
_RUNS = 25
_MOST_COMMANDS = 3
_LARGEST_PAGE = 500
_LEAST_RATIO = 1 / 3
"""A hundred times as many studies, at most three times the cost."""


async def run() -> list[Line]:
    """Measure the pages through HTTP, then count what they cost MongoDB."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            run_mongod(Path(folder)) as mongod,
            open_index_stage(mongod, IndexSize(_MANY)) as many,
            open_index_stage(mongod, IndexSize(_FEW)) as few,
            open_lean_client(many.url, {}, connections=1) as many_client,
            open_lean_client(few.url, {}, connections=1) as few_client,
        ):
            lines: list[Line] = []
            # A page from the middle: before it, as many studies as behind it.
            pages = await _pages(many_client, after=_MANY // 2)
            rivals = await _pages(few_client, after=_FEW // 2)
            for case, body in pages.items():
                times = await alternating_medians(
                    [
                        partial(many_client.post, "/graphql", body),
                        partial(few_client.post, "/graphql", rivals[case]),
                    ],
                    runs=_RUNS,
                )
                lines.append(_row(case, *times))
            return [*lines, *await _bounds(many, many_client, pages)]


def _row(case: str, many: float, few: float) -> Row:
    return Row(
        case=f"{case} of {_MANY} studies",
        ours_seconds=many,
        rival=f"the same of {_FEW}",
        rival_seconds=few,
        goal=_LEAST_RATIO,
    )


async def _pages(client: LeanClient, *, after: int) -> dict[str, bytes]:
    cursor = await _cursor(client, after)
    pages = {
        f"first {PAGE_SIZE}": list_body(),
        f"{PAGE_SIZE} from the middle": list_body(after=cursor),
    }
    filtered = {f"filter by {name}": list_body(filter_=each) for name, each in FILTERS.items()}
    return pages | filtered


async def _cursor(client: LeanClient, after: int) -> str:
    """Page forward by so many studies."""
    cursor: str | None = None
    while after:
        first = min(after, _LARGEST_PAGE)
        answer = json.loads(await client.post("/graphql", list_body(first=first, after=cursor)))
        cursor = answer["data"]["studies"]["pageInfo"]["endCursor"]
        after -= first
    return cursor or ""


async def _bounds(stage: IndexStage, client: LeanClient, pages: Mapping[str, bytes]) -> list[Bound]:
    asked = [
        await asked_by(stage, partial(client.post, "/graphql", body)) for body in pages.values()
    ]
    return [
        Bound(
            case="MongoDB commands of a list, the audit's included",
            value=max(len(each.commands) for each in asked),
            unit="",
            at_most=_MOST_COMMANDS,
        ),
        Bound(
            case="of them without an index, by explain",
            value=sum(len(each.unindexed) for each in asked),
            unit="",
            at_most=0,
        ),
    ]
