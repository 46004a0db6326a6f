"""`orthanc-graphql open`."""

import webbrowser
from pathlib import Path

import click

from graph.commands.options import data_dir_option, examples, load_settings
from services.embedded.data_dir import read_running_stores


@click.command(epilog=examples("orthanc-graphql open --print", settings=("DATA_DIR", "PUBLIC_URL")))
@click.option("--print", "only_prints", is_flag=True, help="Print the address, open nothing.")
@data_dir_option
def command(data_dir: Path | None, *, only_prints: bool) -> None:
    """Open the study browser of the running server in a web browser."""
    address = _address(data_dir)
    click.echo(address)
    if not only_prints and not webbrowser.open(address):
        raise click.ClickException("There is no web browser here; open the address above.")


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
