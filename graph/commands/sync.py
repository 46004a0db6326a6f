"""`orthanc-graphql sync`."""

import secrets
from pathlib import Path

import click

from graph.commands.options import STORES, data_dir_option, examples, load_settings, run
from graph.logs import COMMAND_LOG_LEVEL, configure_logging
from services.errors import Error, PacsDisabled
from services.runtime import open_runtime
from services.settings import Settings
from services.sync.comparison import WHOLE, Part, SyncReport
from services.sync.orthanc_script import deletion_script


class _PartType(click.ParamType[Part]):
    """`2/4`: the second of four parts."""

    name = "part"

    def convert(
        self, value: str | Part, param: click.Parameter | None, ctx: click.Context | None
    ) -> Part:
        """Read a part; the default is one already."""
        if isinstance(value, Part):
            return value
        number, _, of = value.partition("/")
        if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of) <= _MOST):
            self.fail(f"{value!r} is no part: write 1/4, 2/4, 3/4 or 4/4.", param, ctx)
        return Part(int(number), int(of))


_MOST = 100
"""Parts of a comparison."""


@click.command(
    epilog=examples(
        "orthanc-graphql sync --check",
        "orthanc-graphql sync",
        "orthanc-graphql sync --part 2/4",
        "orthanc-graphql sync --print-lua-script http://this-server:8000 > orthanc-events.lua",
        settings=(*STORES, "ORTHANC_EVENTS_SECRET"),
    )
)
@click.option("--check", is_flag=True, help="Change nothing; exit with 1 when something differs.")
@click.option(
    "--part",
    type=_PartType(),
    default=WHOLE,
    metavar="K/N",
    help="Compare every Nth page of studies, from the Kth on: N processes index a large store "
    "together. Afterwards run it once without this option.",
)
@click.option(
    "--print-lua-script",
    "server_url",
    metavar="URL",
    help="Print the script by which your own Orthanc reports to this server at URL what is "
    "deleted, and do nothing else.",
)
@data_dir_option
def command(*, check: bool, part: Part, server_url: str | None, data_dir: Path | None) -> None:
    """Compare MongoDB with Orthanc and repair, once.

    Instances that could not be indexed before are tried again. The exit code is 1 if an instance
    can't be indexed.
    """
    settings = load_settings(data_dir=data_dir)
    if server_url is not None:
        _print_script(settings, server_url)
        return
    configure_logging(COMMAND_LOG_LEVEL)
    run(lambda: _synchronize(settings, part, is_check=check))


def _print_script(settings: Settings, server_url: str) -> None:
    if settings.orthanc_events_secret is None:
        raise click.ClickException(
            "Set ORTHANC_EVENTS_SECRET here and for the server, to letters and digits of your "
            f"choice, such as {secrets.token_hex(16)}"
        )
    try:
        click.echo(
            deletion_script(server_url, settings.orthanc_events_secret.get_secret_value()), nl=False
        )
    except Error as exc:
        raise click.ClickException(exc.message) from exc
    click.echo(
        "Save it on Orthanc's machine, readable for Orthanc alone, name the file in LuaScripts of "
        "Orthanc's configuration, and restart Orthanc.",
        err=True,
    )


async def _synchronize(settings: Settings, part: Part, *, is_check: bool) -> int:
    async with open_runtime(settings) as runtime:
        if runtime.sync is None:
            raise PacsDisabled
        synchronize = runtime.sync.check if is_check else runtime.sync.synchronize
        report = await synchronize(part)
    click.echo(_describe(report, is_check=is_check))
    for instance_id, reason in report.faults.items():
        click.echo(f"can't be indexed: {instance_id}: {reason}", err=True)
    if is_check:
        return 0 if report.up_to_date and not report.faults else 1
    return 1 if report.faults else 0


def _describe(report: SyncReport, *, is_check: bool) -> str:
    if report.up_to_date and report.faults:
        return f"Up to date. Instances that can't be indexed: {len(report.faults)}."
    if report.up_to_date:
        return "Up to date."
    verb = "to be " if is_check else ""
    return (
        f"Instances {verb}indexed: {report.indexed}, {verb}removed: {report.removed}; "
        f"studies {verb}counted again: {report.recounted}."
    )
