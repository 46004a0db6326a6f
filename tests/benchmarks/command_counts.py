"""Which commands a request costs MongoDB, and whether an index serves each of them."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.stage import IndexStage

_AUDIT_SECONDS = 1.0
"""What was shown is written down within this time."""

_OF_THE_SESSION = frozenset(
    {"lsid", "$db", "$clusterTime", "$readPreference", "txnNumber", "maxTimeMS"}
)
_WITHOUT_PLAN = frozenset({"insert", "getmore"})


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request cost.

    Attributes:
        commands: Names and collections.
        unindexed: Those of them that read a collection from end to end.
    """

    commands: list[str]
    unindexed: list[str]


async def asked_by(stage: IndexStage, operation: Callable[[], Awaitable[object]]) -> Asked:
    """Do something, and tell what the server asked of MongoDB meanwhile, the audit included."""
    database = stage.database
    await database.command("profile", 0)
    await database.drop_collection("system.profile")
    await database.command("profile", 2, filter={"appName": "orthanc-graphql"})
    await operation()
    await asyncio.sleep(_AUDIT_SECONDS)
    await database.command("profile", 0)
    entries = await database["system.profile"].find(sort=[("ts", 1)]).to_list()
    commands, unindexed = [], []
    for entry in entries:
        if _is_of_a_change_stream(entry):
            continue
        name = f"{next(iter(entry['command']))} {entry['ns'].partition('.')[2]}"
        commands.append(name)
        if entry["op"] not in _WITHOUT_PLAN and await _scans(stage, entry["command"]):
            unindexed.append(name)
    return Asked(commands, unindexed)


def _is_of_a_change_stream(entry: Mapping[str, Any]) -> bool:
    """Tell what is waited for all the time, whatever is done."""
    command = entry.get("originatingCommand", entry["command"])
    return any("$changeStream" in step for step in command.get("pipeline", ()))


async def _scans(stage: IndexStage, command: Mapping[str, Any]) -> bool:
    asked = {name: value for name, value in command.items() if name not in _OF_THE_SESSION}
    plan = await stage.database.command("explain", asked, verbosity="queryPlanner")
    return "COLLSCAN" in set(_stages(plan))


def _stages(plan: object) -> Iterator[str]:
    """Find the winning plans, whichever shape the answer has, and name their stages."""
    if isinstance(plan, Mapping):
        if isinstance(plan.get("stage"), str):
            yield plan["stage"]
        for name, value in plan.items():
            if name != "rejectedPlans":
                yield from _stages(value)
    elif isinstance(plan, list):
        for each in plan:
            yield from _stages(each)
