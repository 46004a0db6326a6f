"""`orthanc-graphql secrets`, which compose.yaml runs first."""

from pathlib import Path

import click

from graph.commands.options import examples
from services.installation.container_secrets import make_secrets


@click.command(epilog=examples("orthanc-graphql secrets /secrets"))
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
def command(folder: Path) -> None:
    """Make the passwords and keys of an installation in containers, once.

    FOLDER has a folder for each container: server, mongodb and orthanc. Existing secrets are not
    changed.
    """
    made = make_secrets(folder)
    click.echo("The secrets were made." if made else "The secrets exist already.", err=True)
