"""Files that can wait are indexed in one batch with those that come meanwhile."""

import asyncio
from collections.abc import Sequence

import pytest

from services.ingest.coalescing import Coalescer


@pytest.mark.parametrize(("gather_seconds", "batches"), [(0.05, [[1, 2]]), (0, [[1], [2]])])
async def test_a_batch_waits_for_what_comes_meanwhile(
    gather_seconds: float, batches: list[list[int]]
) -> None:
    seen: list[list[int]] = []

    async def work(batch: Sequence[int]) -> Sequence[int]:
        seen.append(list(batch))
        return [10 * item for item in batch]

    coalescer = Coalescer(work, max_weight=10, gather_seconds=gather_seconds)
    first = asyncio.create_task(coalescer.submit(1))
    for _ in range(3):
        await asyncio.sleep(0)
    second = asyncio.create_task(coalescer.submit(2))
    assert [await first, await second] == [10, 20]
    assert seen == batches
