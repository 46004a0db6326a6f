"""`orthanc-graphql doctor`."""

import json
from collections.abc import AsyncIterator
from pathlib import Path

import click

from graph.commands.options import STORES, data_dir_option, examples, load_settings, run
from graph.logs import COMMAND_LOG_LEVEL, configure_logging
from services.doctor.examination import examine
from services.doctor.findings import Finding, Verdict, problem, warning
from services.installation.setting_typos import read_setting_typos

_COLOURS = {Verdict.OK: "green", Verdict.WARNING: "yellow", Verdict.PROBLEM: "red"}
_PART_CHARACTERS = 18
"""Width of the column with the parts."""


@click.command(
    epilog=examples(
        "orthanc-graphql doctor",
        "orthanc-graphql doctor --json",
        settings=(*STORES, "PUBLIC_URL", "TOKENS_FILE", "OIDC_ISSUER"),
    )
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line, for programs.")
@data_dir_option
def command(*, as_json: bool, data_dir: Path | None) -> None:
    """Check every part and say what to do. The exit code is 1 if one is broken.

    If a server is running, its embedded stores are checked; otherwise they are started for the
    check.
    """
    configure_logging(COMMAND_LOG_LEVEL)
    run(lambda: _report(data_dir, as_json=as_json))


async def _report(data_dir: Path | None, *, as_json: bool) -> int:
    is_broken = False
    async for finding in _examine(data_dir):
        is_broken = is_broken or finding.verdict is Verdict.PROBLEM
        click.echo(json.dumps(finding.to_json()) if as_json else _line(finding))
    return 1 if is_broken else 0


async def _examine(data_dir: Path | None) -> AsyncIterator[Finding]:
    # First, because a missing setting may be a misspelt one.
    for misspelt in read_setting_typos():
        yield warning("Settings", misspelt)
    try:
        settings = load_settings(data_dir=data_dir)
    except click.ClickException as exc:
        yield problem("Settings", exc.message)
        return
    async for finding in examine(settings):
        yield finding


def _line(finding: Finding) -> str:
    # click drops the colours where the output is no terminal.
    verdict = click.style(f"{finding.verdict.value:8}", fg=_COLOURS[finding.verdict])
    return f"{verdict} {finding.part:{_PART_CHARACTERS}} {finding.message}"
