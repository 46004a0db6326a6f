"""`orthanc-graphql schema`."""

import click


@click.command()
def command() -> None:
    """Print the GraphQL schema (SDL), for code generators."""
    from graph.schema import schema_sdl  # noqa: PLC0415  # building the schema is this command's work

    click.echo(schema_sdl())
