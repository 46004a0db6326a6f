"""How far behind the feed is."""

from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from tests.real.sync_stage import eventually, instance_bytes, open_stage, running


async def test_the_status_counts_what_waits_and_goes_back_to_nothing(
    mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc
) -> None:
    async with open_stage(mongodb, empty_orthanc) as stage:
        async with running(stage.sync):
            await stage.send([instance_bytes(1, 1, 1)])
            await eventually(stage.is_in_step)
        await stage.send([instance_bytes(1, 1, 2)])
        waiting = await stage.sync.status()
        assert not waiting.is_following
        assert waiting.behind_changes is not None
        assert waiting.behind_changes >= 1
        async with running(stage.sync):
            await eventually(stage.is_in_step)

            async def has_caught_up() -> bool:
                status = await stage.sync.status()
                return status.behind_changes == 0 and status.behind_seconds == 0

            await eventually(has_caught_up)
            assert (await stage.sync.status()).is_following
