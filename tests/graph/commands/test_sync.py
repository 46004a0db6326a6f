from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from unittest.mock import AsyncMock

import pytest
from click.testing import CliRunner

from graph.cli import main
from graph.commands import sync
from services.settings import Settings
from services.sync.comparison import SyncReport

FAULTS = {"f689ddd2": "Orthanc answered 500"}


@pytest.mark.parametrize(
    ("report", "code", "told"),
    [
        (SyncReport(), 0, "Up to date.\n"),
        (SyncReport(faults=FAULTS), 1, "Up to date. Instances that can't be indexed: 1.\n"),
        (
            SyncReport(indexed=2, faults=FAULTS),
            1,
            "Instances to be indexed: 2, to be removed: 0; studies to be counted again: 0.\n",
        ),
    ],
)
def test_a_check_exits_with_1_when_something_differs_or_can_not_be_indexed(
    report: SyncReport, code: int, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @asynccontextmanager
    async def open_runtime(_: Settings) -> AsyncIterator[SimpleNamespace]:
        yield SimpleNamespace(sync=SimpleNamespace(check=AsyncMock(return_value=report)))

    monkeypatch.setattr(sync, "open_runtime", open_runtime)
    ended = CliRunner().invoke(main, ["sync", "--check"])
    assert (ended.exit_code, ended.stdout) == (code, told)
    assert ended.stderr == "".join(
        f"can't be indexed: {instance_id}: {reason}\n"
        for instance_id, reason in report.faults.items()
    )


@pytest.mark.parametrize("part", ["0/2", "3/2", "2", "a/b", "1/1000", ""])
def test_a_part_that_is_none_is_told_with_what_to_write(part: str) -> None:
    ended = CliRunner().invoke(main, ["sync", "--part", part])
    assert ended.exit_code == 2
    assert f"{part!r} is no part: write 1/4, 2/4, 3/4 or 4/4." in ended.stderr
