"""Progress of a long command: a bar on a terminal, plain lines elsewhere."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from services.importing.outcome import Tally

_LINE_SECONDS = 10.0
"""Pause between two plain lines: a night's import stays readable."""


@contextmanager
def shown_progress(tally: Tally, what: str, *, is_dry: bool) -> Iterator[Callable[[], None]]:
    """Show the progress; yields a function to call after each step.

    Args:
        tally: The figures, which change.
        what: The work, in a word.
        is_dry: Files are only checked.
    """
    console = Console(stderr=True)
    title = "Checking" if is_dry else what
    with (
        _bar(tally, title, console) if console.is_terminal else _lines(tally, title, is_dry=is_dry)
    ) as step:
        yield step


def summary(tally: Tally, *, is_dry: bool) -> str:
    """Return the figures in one line.

    Args:
        tally: The figures.
        is_dry: Nothing was sent; the figures are those of a real run.
    """
    done = f"{tally.done} {'file' if tally.done == 1 else 'files'}"
    if tally.done_with_members != tally.done:
        done += f", {tally.done_with_members} with the members of archives"
    if is_dry:
        return (
            f"Dry run, {done}: {tally.stored} would be stored, {tally.already_stored} already "
            f"there, {tally.skipped} would be skipped, {tally.failed} would fail"
        )
    return (
        f"{done}: {tally.stored} stored, {tally.already_stored} already there, "
        f"{tally.skipped} skipped, {tally.failed} failed"
    )


def first_failures(tally: Tally, report_path: Path | None) -> list[str]:
    """Return a line for each of the first failures, and one for the number of the others.

    Args:
        tally: The figures.
        report_path: The file that has all of them; None: there is none.
    """
    lines = [_printable(f"{one.path}: {one.message}") for one in tally.first_failures]
    more = tally.failed - len(lines)
    if more:
        place = (
            "; --report FILE writes all" if report_path is None else f": all are in {report_path}"
        )
        lines.append(f"and {more} more{place}")
    return lines


def _printable(text: str) -> str:
    """Replace control characters, because file names may contain control sequences."""
    return "".join(character if character.isprintable() else "?" for character in text)


def print_result(tally: Tally, report_path: Path | None, *, is_dry: bool, more: str = "") -> None:
    """Write the first failures to stderr and the figures to stdout, after the progress.

    Args:
        tally: The figures.
        report_path: The file that has all failures; None: there is none.
        is_dry: Nothing was sent.
        more: Text after the figures.
    """
    for line in first_failures(tally, report_path):
        click.echo(line, err=True)
    click.echo(f"{summary(tally, is_dry=is_dry)}{more}")


@contextmanager
def _bar(tally: Tally, what: str, console: Console) -> Iterator[Callable[[], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[failed]} failed"),
    )
    begun = monotonic()
    with Progress(*columns, console=console, refresh_per_second=5) as progress:
        task = progress.add_task(what, total=None, rate="", failed=0)

        def step() -> None:
            progress.update(
                task,
                completed=tally.done,
                total=tally.total if tally.is_total_known else None,
                rate=f"{_rate(tally, begun):.0f}/s",
                failed=tally.failed,
            )

        yield step
        step()


@contextmanager
def _lines(tally: Tally, what: str, *, is_dry: bool) -> Iterator[Callable[[], None]]:
    begun = reported = monotonic()

    def step() -> None:
        nonlocal reported
        if monotonic() - reported < _LINE_SECONDS:
            return
        reported = monotonic()
        click.echo(f"{what}: {summary(tally, is_dry=is_dry)}{_outlook(tally, begun)}", err=True)

    yield step


def _rate(tally: Tally, begun: float) -> float:
    return tally.done / max(monotonic() - begun, 1e-3)


def _outlook(tally: Tally, begun: float) -> str:
    rate = _rate(tally, begun)
    if not tally.is_total_known or not rate:
        return f", {rate:.0f}/s"
    return f", {rate:.0f}/s, {max(0, tally.total - tally.done) / rate:.0f} s left"
