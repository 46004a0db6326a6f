"""What frames read of MongoDB comes in portions that the event loop bears."""

from services.frames.records import all_instance_ids
from services.runtime import Runtime


async def test_the_ids_of_all_instances_come_in_portions(runtime: Runtime) -> None:
    ids = [f"{number:04}" for number in range(3500)]
    await runtime.database["instances"].insert_many([{"_id": id_} for id_ in ids])
    await runtime.database.command("profile", 2)
    try:
        assert [id_ async for id_ in all_instance_ids()] == ids
    finally:
        await runtime.database.command("profile", 0)
    answers = runtime.database["system.profile"].find({"ns": f"{runtime.database.name}.instances"})
    assert [answer["nreturned"] async for answer in answers] == [1000, 1000, 1000, 500]
