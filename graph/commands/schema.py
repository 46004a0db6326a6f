"""`orthanc-graphql schema`."""

import click

from graph.commands.options import examples


@click.command(epilog=examples("orthanc-graphql schema > schema.graphql"))
def command() -> None:
    """Print the GraphQL schema (SDL), for code generators."""
    from graph.schema import schema_sdl  # noqa: PLC0415  # building the schema is this command's work

    # It ends its last line itself.
    click.echo(schema_sdl(), nl=False)
