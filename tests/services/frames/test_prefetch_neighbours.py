from collections.abc import Sequence

from services.frames.cache import KEPT_SECONDS, InstanceCache
from services.frames.prefetch import Neighbours
from services.frames.records import RenderableInstance
from tests.graph.routes.stage import REVISION, IndexedInstance

SERIES = [IndexedInstance(id=str(number)) for number in range(40)]


class Index:
    def __init__(self) -> None:
        self.asked_after: list[str] = []
        self.now = 100.0

    async def find(self, instance_id: str) -> RenderableInstance | None:
        raise AssertionError(instance_id)

    async def following(
        self, instance: RenderableInstance, limit: int
    ) -> Sequence[RenderableInstance]:
        self.asked_after.append(instance.id)
        place = int(instance.id) + 1
        return SERIES[place : place + limit]


def neighbours(index: Index) -> tuple[Neighbours, InstanceCache]:
    recent = InstanceCache(index.find, lambda: index.now)
    return Neighbours(index.following, recent, lambda: index.now), recent


async def test_scrolling_through_a_series_asks_the_index_rarely() -> None:
    index = Index()
    found, _ = neighbours(index)
    for place, instance in enumerate(SERIES):
        assert await found.after(instance) == SERIES[place + 1 : place + 9]
    assert index.asked_after == ["0", "17"]


async def test_what_was_found_needs_no_look_up_of_its_own() -> None:
    found, recent = neighbours(Index())
    await found.after(SERIES[0])
    assert await recent.find("1", REVISION) is SERIES[1]


async def test_places_are_forgotten_after_two_seconds_and_when_a_series_changes() -> None:
    index = Index()
    found, _ = neighbours(index)
    await found.after(SERIES[0])
    index.now += KEPT_SECONDS
    await found.after(SERIES[0])
    found.clear()
    await found.after(SERIES[0])
    assert index.asked_after == ["0", "0", "0"]
