"""`orthanc-graphql health`, for containers and scripts."""

import sys
from contextlib import closing
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit

import click

_SECONDS = 3.0
"""A process that is busy with large queries answers within a second."""

_BODY_BYTES = 1024


# Without `graph.commands.options`, whose imports take ten times as long: it runs every few seconds.
@click.command(
    epilog="\b\nExamples:\n  orthanc-graphql health\n"
    "  orthanc-graphql health --url http://127.0.0.1:8001/readyz"
)
@click.option(
    "--url",
    default="http://127.0.0.1:8000/healthz",
    show_default=True,
    help="Address on this machine: /healthz, or /readyz.",
)
def command(url: str) -> None:
    """Ask a server whether it is well; the exit code is 0 or 1."""
    parts = urlsplit(url)
    if parts.scheme != "http" or not parts.hostname:
        raise click.BadParameter("must be http://host:port/path", param_hint="--url")
    try:
        with closing(HTTPConnection(parts.hostname, parts.port, timeout=_SECONDS)) as connection:
            connection.request("GET", parts.path)
            with connection.getresponse() as response:
                body = response.read(_BODY_BYTES).decode("utf-8", "replace")
    except (HTTPException, OSError) as exc:
        click.echo(f"{url}: {exc}", err=True)
        sys.exit(1)
    is_well = response.status == HTTPStatus.OK
    click.echo(body if is_well else f"{url}: {response.status} {body}", err=not is_well)
    sys.exit(0 if is_well else 1)
