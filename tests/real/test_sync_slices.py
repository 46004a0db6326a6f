"""A large store is compared in slices, which find everything within a round."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.sync import comparison
from services.sync.comparison import Part
from tests.real.sync_stage import Stage, instance_bytes, open_stage

STUDIES = 7


@pytest.fixture
async def stage(
    mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    monkeypatch.setattr(comparison, "PAGE_STUDIES", 2)
    async with open_stage(mongodb, empty_orthanc) as opened:
        ids = await opened.send(instance_bytes(study, 1, 1) for study in range(1, STUDIES + 1))
        await opened.sync.reconciler.reconcile(ids)
        yield opened


async def test_a_round_of_slices_finds_a_deletion_and_an_arrival(stage: Stage) -> None:
    held = await stage.orthanc.studies(0, STUDIES)
    await stage.modality.delete(f"/studies/{held[3].study_id}")
    await stage.send([instance_bytes(STUDIES + 1, 1, 1)])
    assert not await stage.is_in_step()
    # The first slice begins anywhere, so the last of a round may end in the middle of one.
    reports = [await stage.sync.comparison.run_slice() for _ in range(STUDIES)]
    assert sum(report.indexed for report in reports) == 1
    assert sum(report.removed for report in reports) == 1
    assert await stage.is_in_step()


async def test_a_slice_asks_for_a_page_and_not_for_all(stage: Stage) -> None:
    compared = stage.database["comparedStudies"]
    await stage.sync.comparison.run_slice()
    assert await compared.count_documents({}) <= 2


async def test_parts_index_a_store_together_and_nothing_twice(stage: Stage) -> None:
    gone, *others = sorted(await stage.instance_ids())
    await stage.indexer.remove(others)
    await stage.modality.delete(f"/instances/{gone}")
    reports = await asyncio.gather(
        *(stage.sync.comparison.run(part=Part(number, of=3)) for number in (1, 2, 3))
    )
    assert sum(report.indexed for report in reports) == len(others)
    assert all(report.indexed for report in reports)
    assert [report.removed for report in reports] == [1, 0, 0]
    assert await stage.is_in_step()


async def test_counts_without_adding_up_are_right_although_mongodb_is_wrong_about_its_own(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = stage.sync.comparison.counts
    estimate = counts.indexed.estimate

    async def wrong_by_two(**limits: int) -> int:
        return await estimate(**limits) - 2

    monkeypatch.setattr(counts.indexed, "estimate", wrong_by_two)
    assert not await counts.differs(is_exact=False)
    [added] = await stage.send([instance_bytes(1, 1, 2)])
    await stage.sync.reconciler.reconcile([added])
    assert not await counts.differs(is_exact=False)
    [study, *_] = await stage.orthanc.studies(0, 1)
    await stage.modality.delete(f"/studies/{study.study_id}")
    assert await counts.differs(is_exact=False)
