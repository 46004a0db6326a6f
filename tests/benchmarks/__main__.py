"""`python -m tests.benchmarks [CASE...]`: run the cases, print a table, write `benchmarks.json`."""

import asyncio
import json
import platform
import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.benchmarks.measuring import Row

_CASES = ("tree", "frames", "uploads", "synchronizing")
_OUTPUT = Path("benchmarks.json")


def main(names: Sequence[str]) -> None:
    """Run the named cases, all when none is named."""
    rows: list[Row] = []
    for name in names or _CASES:
        rows += asyncio.run(import_module(f"tests.benchmarks.{name}").run())
    _print(rows)
    machine = {"machine": platform.machine(), "python": platform.python_version()}
    _OUTPUT.write_text(json.dumps(machine | {"rows": [row.to_json() for row in rows]}, indent=2))


def _print(rows: Sequence[Row]) -> None:
    table = Table("case", "this server", "rival", "its time", "ratio", "goal")
    for row in rows:
        table.add_row(
            row.case,
            f"{row.ours_seconds * 1000:.1f} ms",
            row.rival,
            f"{row.rival_seconds * 1000:.1f} ms",
            f"{row.ratio:.2f}x",
            f"{row.goal:g}x",
        )
    Console(width=140).print(table)


if __name__ == "__main__":
    main(sys.argv[1:])
