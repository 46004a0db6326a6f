"""`orthanc-graphql open`, `schema` and `key`: commands that print one thing."""

import webbrowser
from pathlib import Path

import click

from graph.commands.options import data_dir_option, examples, load_settings
from services.embedded.data_dir import read_running_stores
from services.frames.signing import generate_key


@click.command(
    name="open",
    epilog=examples("orthanc-graphql open --print", settings=("DATA_DIR", "PUBLIC_URL")),
)
@click.option("--print", "only_prints", is_flag=True, help="Print the address, open nothing.")
@data_dir_option
def open_(data_dir: Path | None, *, only_prints: bool) -> None:
    """Open the study browser of the running server in a web browser."""
    address = _address(data_dir)
    click.echo(address)
    if not only_prints and not webbrowser.open(address):
        raise click.ClickException("No web browser was found; open the address above.")


def _address(data_dir: Path | None) -> str:
    settings = load_settings(data_dir=data_dir)
    if settings.public_url is not None:
        return f"{settings.public_url}/"
    running = read_running_stores(settings.data_dir)
    if running is None or not running.address:
        raise click.ClickException(
            f"No server runs on the data directory {settings.data_dir}. "
            "Start one with: orthanc-graphql serve"
        )
    return f"{running.address}/"


@click.command(name="schema", epilog=examples("orthanc-graphql schema > schema.graphql"))
def schema() -> None:
    """Print the GraphQL schema (SDL), for code generators."""
    from graph.schema import schema_sdl  # noqa: PLC0415  # building the schema is this command's work

    # The SDL ends with a newline.
    click.echo(schema_sdl(), nl=False)


@click.command(
    name="key",
    epilog=examples('export FRAME_URL_KEYS="$(orthanc-graphql key)"', settings=("FRAME_URL_KEYS",)),
)
def key() -> None:
    """Print a new key for FRAME_URL_KEYS.

    Put the new key first in the list: the first one signs, all verify. Keep the old keys after it
    until their URLs have expired, 40 minutes unless FRAME_URL_SECONDS is set.
    """
    click.echo(generate_key())
