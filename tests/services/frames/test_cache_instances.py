from services.frames.cache import KEPT_SECONDS, InstanceCache
from services.frames.records import RenderableInstance
from tests.graph.routes.stage import INSTANCE_ID, REVISION, IndexedInstance


class Index:
    def __init__(self, instance: RenderableInstance | None) -> None:
        self.instance = instance
        self.lookups = 0

    async def find(self, _: str) -> RenderableInstance | None:
        self.lookups += 1
        return self.instance


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


async def test_an_instance_is_looked_up_once_in_two_seconds() -> None:
    index, clock = Index(instance := IndexedInstance()), Clock()
    recent = InstanceCache(index.find, clock)
    assert [await recent.find(INSTANCE_ID, REVISION) for _ in range(3)] == [instance] * 3
    assert index.lookups == 1
    clock.now += KEPT_SECONDS
    index.instance = switched_off = IndexedInstance(use_orthanc_preview=False)
    assert await recent.find(INSTANCE_ID, REVISION) is switched_off
    assert index.lookups == 2


async def test_another_revision_is_looked_up_at_once() -> None:
    index = Index(IndexedInstance())
    recent = InstanceCache(index.find, Clock())
    await recent.find(INSTANCE_ID, REVISION)
    index.instance = IndexedInstance(revision="00000001")
    assert await recent.find(INSTANCE_ID, "00000001") is index.instance
    assert await recent.find(INSTANCE_ID, REVISION) is None


async def test_what_is_not_there_is_looked_up_each_time() -> None:
    index = Index(None)
    recent = InstanceCache(index.find, Clock())
    assert [await recent.find(INSTANCE_ID, REVISION) for _ in range(2)] == [None, None]
    assert index.lookups == 2


async def test_what_was_discarded_is_looked_up_again() -> None:
    index = Index(IndexedInstance())
    recent = InstanceCache(index.find, Clock())
    await recent.find(INSTANCE_ID, REVISION)
    recent.discard(INSTANCE_ID)
    await recent.find(INSTANCE_ID, REVISION)
    assert index.lookups == 2


async def test_the_oldest_of_many_give_way() -> None:
    index = Index(None)
    recent = InstanceCache(index.find, Clock())
    recent.keep([IndexedInstance(id=str(number)) for number in range(257)])
    assert await recent.find("1", REVISION) is not None
    assert await recent.find("0", REVISION) is None
    assert index.lookups == 1
