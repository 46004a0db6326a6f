"""The result of a run: `benchmarks.json`, and the tables in the terminal and docs/benchmarks.md."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parents[2]
REPORT = _ROOT / "benchmarks.json"
PAGE = _ROOT / "docs" / "benchmarks.md"

HEADS = ("case", "this server", "beside", "its time", "times as fast", "goal", "")
_SECTION = re.compile(r"(?<=<!-- benchmarks -->\n).*?(?=\n<!-- /benchmarks -->)", re.DOTALL)
_MARKS = {True: "met", False: "missed"}

RowJson = Mapping[str, Any]
"""`Row.to_json` or `Bound.to_json`, with the name of its `suite`."""

Report = Mapping[str, Any]
"""`machine`, by what it consists of, and `rows`."""


def merged(old: Report, machine: Mapping[str, str], new: Mapping[str, Sequence[RowJson]]) -> Report:
    """Put new suites in the place of old ones; figures of another machine are dropped.

    Args:
        old: What was measured before.
        machine: This one.
        new: Rows by suite.
    """
    kept = old["rows"] if old["machine"] == machine else []
    suites: dict[str, list[RowJson]] = {}
    for row in kept:
        suites.setdefault(row["suite"], []).append(row)
    for suite, rows in new.items():
        suites[suite] = [{"suite": suite, **row} for row in rows]
    return {"machine": machine, "rows": [row for rows in suites.values() for row in rows]}


def read_report() -> Report:
    """Read what was measured before."""
    report: Report = json.loads(REPORT.read_text(encoding="utf-8"))
    return report


def write_report(report: Report) -> None:
    """Write `benchmarks.json` and the table in docs/benchmarks.md."""
    REPORT.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    text = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(_SECTION.sub(lambda _: page_section(report), text), encoding="utf-8")


def section_of(page: str) -> str | None:
    """Return what stands between the marks in a page."""
    found = _SECTION.search(page)
    return found and found[0]


def page_section(report: Report) -> str:
    """Write the table as Markdown, with the machine it comes from."""
    if not report["rows"]:
        return "`make bench` measures and writes the table here."
    lines = [f"Measured on {', '.join(report['machine'].values())}.", "", *_table(report["rows"])]
    return "\n".join(lines)


def cells(row: RowJson) -> tuple[str, ...]:
    """Return the cells of one row, in the order of `HEADS`."""
    mark = _MARKS[row["met"]]
    if "rival" not in row:
        return (
            row["case"],
            _quantity(row["value"], row["unit"]),
            "",
            "",
            "",
            f"at most {_quantity(row['at_most'], row['unit'])}",
            mark,
        )
    return (
        row["case"],
        _quantity(row["ours_seconds"], "s"),
        row["rival"],
        _quantity(row["rival_seconds"], "s"),
        f"{row['ratio']:.3g}",
        f"{row['goal']:.3g}",
        mark,
    )


def _table(rows: Sequence[RowJson]) -> list[str]:
    lines = [HEADS, tuple("---" for _ in HEADS), *map(cells, rows)]
    return [f"| {' | '.join(line)} |" for line in lines]


def _quantity(value: float, unit: str) -> str:
    if unit != "s":
        return f"{value:.4g} {unit}".rstrip()
    if value < 1:
        return f"{value * 1000:.3g} ms"
    return f"{value:.3g} s"
