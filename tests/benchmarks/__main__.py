"""`python -m tests.benchmarks [--write] [SUITE...]`: measure and print a table."""

import argparse
import asyncio
import time
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from rich.console import Console
from rich.table import Table

from tests.benchmarks.machine import describe_machine
from tests.benchmarks.report import HEADS, cells, merged, read_report, write_report

_SUITES = (
    "tree",
    "lists",
    "scale",
    "frames",
    "uploads",
    "synchronization",
    "startup",
    "memory",
    "dicomweb",
    "ohif",
)


def main() -> None:
    """Run the named suites, or all."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help=", ".join(_SUITES))
    parser.add_argument(
        "--write",
        action="store_true",
        help="write benchmarks.json and the table in docs/benchmarks.md",
    )
    arguments = parser.parse_args()
    unknown = set(arguments.suites) - set(_SUITES)
    if unknown:
        parser.error(f"no such suite: {', '.join(sorted(unknown))}")
    console = Console(width=160)
    found: dict[str, list[dict[str, Any]]] = {}
    for name in arguments.suites or _SUITES:
        began = time.monotonic()
        lines = asyncio.run(import_module(f"tests.benchmarks.{name}").run())
        found[name] = [line.to_json() for line in lines]
        console.print(f"{name}: {time.monotonic() - began:.0f} s")
    console.print(_table(found))
    if arguments.write:
        write_report(merged(read_report(), describe_machine(), found))


def _table(found: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    table = Table(*HEADS)
    for rows in found.values():
        for row in rows:
            table.add_row(*cells(row), style=None if row["met"] else "bold")
        table.add_section()
    return table


if __name__ == "__main__":
    main()
