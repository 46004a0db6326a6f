"""`orthanc-graphql key`."""

import click

from graph.commands.options import examples
from services.frames.signing import generate_key


@click.command(
    epilog=examples('export FRAME_URL_KEYS="$(orthanc-graphql key)"', settings=("FRAME_URL_KEYS",))
)
def command() -> None:
    """Print a new key for FRAME_URL_KEYS.

    Put it first in the list to sign with it; keep the old ones behind it for as long as their URLs
    shall work (20 minutes).
    """
    click.echo(generate_key())
