"""`orthanc-graphql restore`."""

from pathlib import Path

import click

from graph.commands.options import STORES, examples, load_settings, run
from graph.logs import COMMAND_LOG_LEVEL, configure_logging
from services.auth.scope import ALL
from services.backup import catalogue
from services.backup.catalogue import Backup, BackupFailed
from services.backup.database_dump import load_database
from services.backup.restoration import end_active_jobs, restore_files
from services.connections import open_database_alone
from services.runtime import open_runtime
from services.settings import Settings


@click.command(
    epilog=examples(
        "orthanc-graphql restore /backups --data-dir /srv/orthanc-graphql",
        "orthanc-graphql restore /backups --name 2026-11-27T194500Z --data-dir .data-restored",
        settings=STORES,
    )
)
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--name", help="Restore this backup instead of the newest.")
@click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="New folder of the embedded stores and keys; must be empty or missing.",
)
def command(folder: Path, name: str | None, data_dir: Path) -> None:
    """Restore a backup into a new data directory, and compare MongoDB with Orthanc once.

    The backup is not changed. If MONGODB_URL is set, the documents are restored into that MongoDB,
    whose database must be empty.
    """
    configure_logging(COMMAND_LOG_LEVEL)
    settings = load_settings(data_dir=data_dir)
    run(lambda: _restore(settings, folder, name))


async def _restore(settings: Settings, folder: Path, name: str | None) -> None:
    backup = catalogue.require_backup(folder, name)
    _refuse_mixed(settings, backup)
    await restore_files(folder, backup.name, settings.data_dir)
    dumped = folder / backup.name / catalogue.MONGODB
    async with open_database_alone(settings) as database:
        await load_database(database, dumped, backup.manifest.collections)
        left = await end_active_jobs(database)
    instances = backup.manifest.number_of_instances
    if left or backup.manifest.orthanc is not None:
        async with open_runtime(settings) as runtime:
            if runtime.replacements is not None:
                await runtime.replacements.finish_those_of(left, None)
            if runtime.sync is not None and backup.manifest.orthanc is not None:
                await runtime.sync.synchronize()
                instances = await runtime.trees.within(ALL).count_instances()
    click.echo(
        f"Restored {backup.name} with {instances} instances. Start the server with: "
        f"orthanc-graphql serve --data-dir {settings.data_dir}"
    )


def _refuse_mixed(settings: Settings, backup: Backup) -> None:
    """Refuse to restore documents without files, because the comparison would remove them.

    Raises:
        BackupFailed: The settings do not match the backup.
    """
    if backup.manifest.orthanc is None and settings.embeds_orthanc:
        raise BackupFailed(
            f"{backup.name} has no files of Orthanc. Restore Orthanc with its own tools first, and "
            "set ORTHANC_URL to it: docs/backup.md"
        )
    if backup.manifest.orthanc is not None and not settings.embeds_orthanc:
        raise BackupFailed(
            f"{backup.name} has the files of an embedded Orthanc: unset ORTHANC_URL, and "
            "ENABLE_PACS_INTEGRATION, to restore them."
        )
