"""Which reads and writes of instances name their series, by which instances can be sharded.

docs/scaling.md has the same table. There is no sharded cluster here: the filters are looked at.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pymongo.monitoring import CommandStartedEvent

from services import database as database_module
from services.embedded.mongod import EmbeddedMongod
from services.embedded.orthanc import EmbeddedOrthanc
from services.runtime import Runtime
from services.settings import Settings
from tests.real.dicomweb_stage import slices, store
from tests.real.sync_stage import eventually
from tests.servers import RunningServer, settings_on

SHARD_KEY = "orthancSeriesId"
Reads = set[tuple[str, str, str]]


@pytest.fixture
def settings(mongodb: EmbeddedMongod, empty_orthanc: EmbeddedOrthanc, tmp_path: Path) -> Settings:
    # Only this has every command reported.
    return settings_on(mongodb, empty_orthanc, tmp_path, metrics_port=1)


class Recorder:
    """Collects what is asked of a collection: command and the fields by which it chooses."""

    def __init__(self) -> None:
        self.seen: Reads = set()

    def started(self, event: CommandStartedEvent) -> None:
        for part in parts_of(event.command_name, event.command):
            self.seen.add(part)

    def of(self, collection: str) -> set[tuple[str, str]]:
        return {(command, fields) for name, command, fields in self.seen if name == collection}


def parts_of(name: str, command: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    collection = str(command.get(name))
    match name:
        case "find":
            yield collection, name, fields_of(command.get("filter", {}))
        case "aggregate" if isinstance(command.get("aggregate"), str):
            stages = command["pipeline"]
            first = stages[0].get("$match", {}) if stages else {}
            yield collection, name, fields_of(first)
            for stage in stages:
                joined = stage.get("$lookup") or stage.get("$unionWith")
                if isinstance(joined, Mapping):
                    inner = (joined.get("pipeline") or [{}])[0].get("$match", {})
                    other = joined.get("from") or joined["coll"]
                    yield other, "join", joined.get("foreignField") or fields_of(inner)
        case "update" | "delete":
            for one in command.get(f"{name}s", ()):
                yield collection, name, fields_of(one["q"])


def fields_of(filter_: Mapping[str, Any]) -> str:
    names: set[str] = set()
    for field, value in filter_.items():
        if field == "$and":
            for part in value:
                names |= set(fields_of(part).split(","))
        else:
            names.add(field)
    return ",".join(sorted(names))


@contextmanager
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    recorder = Recorder()
    with monkeypatch.context() as patch:
        patch.setattr(
            database_module._CommandObserver,
            "started",
            recorder.started,
        )
        yield recorder


DELETION = "mutation($id: ID!) { deleteStudy(id: $id) { __typename } }"
READS = {
    "study tree": "{ studies { nodes { series { instances { frames { url } } } } } }",
    "page of instances": "{ studies { nodes { series { instances(first: 2) { id } } } } }",
    "frames of a stack": "{ studies { nodes { series { frames(first: 2) { totalCount } } } } }",
}


ALL = """{ studies { nodes { id studyInstanceUID series { seriesInstanceUID
  instances { frames { url } } } } } }"""


def documented() -> dict[str, set[tuple[str, str]]]:
    """The table of docs/scaling.md: operation, command and the fields that it chooses by."""
    text = Path(__file__).parents[2].joinpath("docs", "scaling.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ([a-z ]+) \| (\w+) by ([`\w, ]+) \| (one|all) \|$", text, re.MULTILINE)
    table: dict[str, set[tuple[str, str]]] = {}
    for operation, command, fields, shards in rows:
        names = re.findall(r"\w+", fields)
        assert (SHARD_KEY in names) == (shards == "one"), operation
        table.setdefault(operation, set()).add((command, ",".join(names)))
    return table


async def test_the_table_of_the_documentation_says_which_shards_are_asked(
    server: RunningServer, runtime: Runtime, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: dict[str, set[tuple[str, str]]] = {}
    with recording(monkeypatch) as seen:
        await store(server, slices("P1", 3))
    found["upload"] = seen.of("instances")
    for name, query in READS.items():
        with recording(monkeypatch) as seen:
            await server.graphql(query)
        found[name] = seen.of("instances")
    answer: Any = await server.graphql(ALL)
    [study] = answer["studies"]["nodes"]
    [series] = study["series"]
    with recording(monkeypatch) as seen:
        url = series["instances"][0]["frames"][0]["url"]
        assert (await server.http.get(url)).status_code == 200
        # The following ones are rendered ahead.
        await eventually(lambda: _has(seen, ("find", f"numberKey,{SHARD_KEY}")))
    found["cold frame"] = seen.of("instances")
    with recording(monkeypatch) as seen:
        uids = f"{study['studyInstanceUID']}/series/{series['seriesInstanceUID']}"
        for what in ("metadata", "instances"):
            path = f"/dicomweb/studies/{uids}/{what}"
            assert (await server.http.get(path)).status_code == 200
    found["dicomweb of a series"] = seen.of("instances")
    assert runtime.sync is not None
    with recording(monkeypatch) as seen:
        await runtime.sync.synchronize()
    found["whole comparison"] = seen.of("instances")
    with recording(monkeypatch) as seen:
        await server.graphql(DELETION, id=study["id"])
    found["deletion of a study"] = seen.of("instances")
    assert found == documented()


async def _has(seen: Recorder, part: tuple[str, str]) -> bool:
    return part in seen.of("instances")
