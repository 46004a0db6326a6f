"""`orthanc-graphql migrate`."""

from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import click

from graph.commands.options import STORES, data_dir_option, examples, load_settings, run
from graph.commands.progress import print_result, shown_progress
from graph.logs import COMMAND_LOG_LEVEL, configure_logging
from services.errors import PacsDisabled
from services.importing.report import Report
from services.migration.path_map import PathMap
from services.migration.run import MigrationRun
from services.migration.source import open_source
from services.runtime import open_runtime
from services.settings import Settings


def _path_map(_context: click.Context, _option: click.Parameter, values: Sequence[str]) -> PathMap:
    pairs = [value.partition("=") for value in values]
    if not all(old and equals and new for old, equals, new in pairs):
        raise click.BadParameter("write OLD=NEW, for example /data=/mnt/old")
    return PathMap([(old, new) for old, _, new in pairs])


@click.command(
    epilog=examples(
        "orthanc-graphql migrate --source mongodb://old-host/dicom --dry-run",
        "orthanc-graphql migrate --source mongodb://old-host/dicom --path-map /data=/mnt/old",
        settings=STORES,
    )
)
@click.option(
    "--source",
    required=True,
    help="The old database with its name, for example mongodb://host/dicom.",
)
@click.option("--dry-run", is_flag=True, help="Only check the files; send and change nothing.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="File for a line of JSON per file that is not migrated, and the figures at the end.",
)
@click.option(
    "--path-map",
    multiple=True,
    callback=_path_map,
    metavar="OLD=NEW",
    help="The files under OLD are under NEW now; may be given several times.",
)
@click.option(
    "--concurrency",
    default=4,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Files that are sent at once.",
)
@data_dir_option
def command(
    *,
    source: str,
    dry_run: bool,
    report: Path | None,
    path_map: PathMap,
    concurrency: int,
    data_dir: Path | None,
) -> None:
    """Move the local files of the old system into Orthanc.

    Each file is sent once and verified; then all its records get their Orthanc ids. Missing and
    unreadable files are reported, with exit code 1. The command can be repeated at any time: it
    skips records with an Orthanc id. No file is changed or removed.
    """
    configure_logging(COMMAND_LOG_LEVEL)
    settings = load_settings(data_dir=data_dir)
    run(lambda: _migrate(settings, source, report, path_map, concurrency, is_dry=dry_run))


async def _migrate(
    settings: Settings,
    source_url: str,
    report_path: Path | None,
    path_map: PathMap,
    concurrency: int,
    *,
    is_dry: bool,
) -> int:
    async with open_runtime(settings) as runtime, open_source(source_url) as source:
        if runtime.orthanc is None or runtime.orthanc_url is None:
            raise PacsDisabled
        migration = MigrationRun(
            source,
            runtime.ingest,
            runtime.orthanc,
            orthanc_url=runtime.orthanc_url,
            path_map=path_map,
            concurrency=concurrency,
            limits=settings.walk_limits,
        )
        with Report(report_path) as report:
            await migration.count()
            with shown_progress(migration.tally, "Migrating", is_dry=is_dry) as step:
                async with aclosing(migration.outcomes(is_dry=is_dry)) as outcomes:
                    async for outcome in outcomes:
                        report.add(outcome)
                        step()
            report.finish(migration.tally)
    records = "records to be linked" if is_dry else "linked records"
    more = f"; {records}: {migration.records}"
    print_result(migration.tally, report_path, is_dry=is_dry, more=more)
    return 1 if migration.tally.failed else 0
