"""`orthanc-graphql backup`."""

from pathlib import Path

import click

from graph.commands.options import STORES, data_dir_option, examples, load_settings, run
from graph.logs import COMMAND_LOG_LEVEL, configure_logging
from services.backup.catalogue import list_backups, remove_oldest
from services.backup.creation import create_backup
from services.backup.service import embedded_data
from services.backup.verification import verify_backup
from services.connections import open_database_alone
from services.settings import Settings
from services.tasks import finish_in_thread

_MEGABYTE = 1_000_000


@click.command(
    epilog=examples(
        "orthanc-graphql backup /backups",
        "orthanc-graphql backup /backups --keep 14",
        "orthanc-graphql backup /backups --verify",
        "orthanc-graphql backup /backups --list",
        settings=STORES,
    )
)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--verify", is_flag=True, help="Check the newest backup instead: read every byte.")
@click.option("--list", "lists", is_flag=True, help="List the backups instead.")
@click.option("--name", help="With --verify: check this backup instead of the newest.")
@click.option(
    "--keep", type=click.IntRange(min=1), help="Remove the oldest ones, so that this many are left."
)
@data_dir_option
def command(  # click calls by name
    folder: Path,
    name: str | None,
    keep: int | None,
    data_dir: Path | None,
    *,
    verify: bool,
    lists: bool,
) -> None:
    """Save everything that the embedded stores hold into FOLDER, while the server runs.

    Each backup is a folder of its own. Files that did not change since the one before are links to
    it, so a backup takes little time and room, and each can be removed alone. Restore with:
    orthanc-graphql restore FOLDER --data-dir NEW
    """
    configure_logging(COMMAND_LOG_LEVEL)
    if lists:
        _list(folder)
    elif verify:
        run(lambda: _verify(folder, name))
    else:
        settings = load_settings(data_dir=data_dir)
        run(lambda: _create(settings, folder, keep))


def _list(folder: Path) -> None:
    for backup in list_backups(folder):
        manifest = backup.manifest
        verified = f"verified {backup.verified_at:%Y-%m-%d}" if backup.verified_at else "unverified"
        click.echo(
            f"{backup.name}  {manifest.number_of_studies} studies, "
            f"{manifest.number_of_instances} instances, {manifest.size / _MEGABYTE:.1f} MB, "
            f"{verified}"
        )


async def _create(settings: Settings, folder: Path, keep: int | None) -> None:
    async with open_database_alone(settings) as database:
        data = await embedded_data(settings.data_dir, has_orthanc=settings.embeds_orthanc)
        backup = await create_backup(database, data, folder)
    manifest = backup.manifest
    click.echo(
        f"{folder / backup.name}: {manifest.number_of_studies} studies, "
        f"{manifest.number_of_instances} instances, {manifest.size / _MEGABYTE:.1f} MB."
    )
    if manifest.orthanc is None:
        click.echo(
            "Orthanc's files are not in it: ORTHANC_URL names an Orthanc that is not embedded. "
            "Save them with its own tools: docs/backup.md",
            err=True,
        )
    for removed in await finish_in_thread(remove_oldest, folder, keep) if keep else []:
        click.echo(f"Removed {folder / removed}.")


async def _verify(folder: Path, name: str | None) -> int:
    found = await verify_backup(folder, name)
    for fault in found.faults:
        click.echo(fault, err=True)
    if found.faults:
        click.echo(f"{folder / found.name} is damaged.", err=True)
        return 1
    arrived = f" {found.unindexed} arrived meanwhile." if found.unindexed else ""
    click.echo(
        f"{folder / found.name} is complete: {found.studies} studies, {found.instances} "
        f"instances.{arrived}"
    )
    return 0
