"""`orthanc-graphql sync`."""

from pathlib import Path

import click

from graph.commands.options import data_dir_option, load_settings, run
from services.errors import PacsDisabled
from services.runtime import open_runtime
from services.settings import Settings
from services.sync.repairs import SyncReport


@click.command()
@click.option("--check", is_flag=True, help="Only tell; exit with 1 when something differs.")
@data_dir_option
def command(*, check: bool, data_dir: Path | None) -> None:
    """Compare MongoDB with Orthanc and repair, once."""
    settings = load_settings(data_dir=data_dir)
    run(lambda: _synchronize(settings, is_check=check))


async def _synchronize(settings: Settings, *, is_check: bool) -> int:
    async with open_runtime(settings) as runtime:
        if runtime.sync is None:
            raise PacsDisabled
        report = await (runtime.sync.check() if is_check else runtime.sync.synchronize())
    click.echo(_told(report, is_check=is_check))
    for instance_id, reason in report.faults.items():
        click.echo(f"can't be indexed: {instance_id}: {reason}", err=True)
    if is_check:
        return 0 if report.up_to_date else 1
    return 1 if report.faults else 0


def _told(report: SyncReport, *, is_check: bool) -> str:
    if report.up_to_date:
        return "Up to date."
    verb = "to be " if is_check else ""
    return (
        f"Instances {verb}indexed: {report.indexed}, {verb}removed: {report.removed}; "
        f"studies {verb}counted again: {report.recounted}."
    )
