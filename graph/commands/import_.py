"""`orthanc-graphql import`."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path

import click

from graph.commands.options import STORES, data_dir_option, examples, load_settings, run
from graph.commands.progress import print_result, shown_progress
from graph.logs import COMMAND_LOG_LEVEL, configure_logging
from services.importing.journal import Journal
from services.importing.report import Report
from services.importing.run import ImportRun
from services.runtime import open_runtime
from services.settings import Settings


@click.command(
    epilog=examples(
        "orthanc-graphql import --dry-run /mnt/archive",
        "orthanc-graphql import --concurrency 8 --report failures.jsonl /mnt/archive more.zip",
        settings=(*STORES, "KEEP_TIFF_PREAMBLE", "ZIP_MAX_MEMBERS", "ZIP_MAX_BYTES"),
    )
)
@click.argument(
    "paths",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH...",
)
@click.option(
    "--concurrency",
    default=4,
    show_default=True,
    type=click.IntRange(1, 64),
    help="Files that are sent at once.",
)
@click.option("--dry-run", is_flag=True, help="Only check the files; send nothing.")
@click.option(
    "--report",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    help="File for a line of JSON per file that is not stored, and the figures at the end.",
)
@data_dir_option
def command(
    *,
    paths: tuple[Path, ...],
    concurrency: int,
    dry_run: bool,
    report: Path | None,
    data_dir: Path | None,
) -> None:
    """Upload folders, files and ZIPs of DICOM files.

    The files are not changed. Files that an earlier run stored and that did not change since are
    not sent again, so an interrupted import continues where it stopped. Files that are not DICOM
    are skipped; the exit code is 1 if DICOM files failed.
    """
    configure_logging(COMMAND_LOG_LEVEL)
    settings = load_settings(data_dir=data_dir)
    run(lambda: _import(settings, paths, concurrency, report, is_dry=dry_run))


async def _import(
    settings: Settings,
    paths: Sequence[Path],
    concurrency: int,
    report_path: Path | None,
    *,
    is_dry: bool,
) -> int:
    journal_path = settings.data_dir / "journals" / "import.sqlite3"
    async with open_runtime(settings) as runtime:
        with Journal(journal_path) as journal, Report(report_path) as report:
            importing = ImportRun(
                runtime.ingest,
                runtime.database,
                journal,
                concurrency=concurrency,
                limits=settings.walk_limits,
            )
            await _follow(importing, paths, report, is_dry=is_dry)
            report.finish(importing.tally)
    print_result(importing.tally, report_path, is_dry=is_dry)
    return 1 if importing.tally.failed else 0


async def _follow(
    importing: ImportRun, paths: Sequence[Path], report: Report, *, is_dry: bool
) -> None:
    counting = asyncio.create_task(importing.count(paths))
    try:
        with shown_progress(importing.tally, "Importing", is_dry=is_dry) as step:
            async with aclosing(importing.outcomes(paths, is_dry=is_dry)) as outcomes:
                async for outcome in outcomes:
                    report.add(outcome)
                    step()
    finally:
        counting.cancel()
        await asyncio.gather(counting, return_exceptions=True)
