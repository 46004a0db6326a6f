"""`orthanc-graphql token`: make, list and revoke static tokens."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from graph.commands.options import data_dir_option, examples, load_settings
from services.auth.roles import Role
from services.auth.tokens import (
    Token,
    TokensFileMissing,
    changed_tokens,
    issue_token,
    read_tokens,
    revoke_token,
)
from services.errors import Error

_ROLES = [role.name.lower() for role in Role]


@click.group(
    epilog=examples(
        "orthanc-graphql token create --role viewer --name worklist",
        "orthanc-graphql token list",
        settings=("DATA_DIR", "TOKENS_FILE"),
    )
)
def command() -> None:
    """Make, list and revoke tokens for `Authorization: Bearer <token>`.

    Only their hashes are kept, in TOKENS_FILE or tokens.json in the data directory. A running
    server notices a change within seconds.
    """


@command.command(
    epilog=examples(
        "orthanc-graphql token create --role uploader --name scanner --expires-in 365",
        settings=("DATA_DIR", "TOKENS_FILE"),
    )
)
@click.option("--name", required=True, help="Who or what uses it; stands in the audit trail.")
@click.option("--role", required=True, type=click.Choice(_ROLES), help="What it allows.")
@click.option("--expires-in", type=click.IntRange(1, 36_500), metavar="DAYS", help="Lifetime.")
@data_dir_option
def create(name: str, role: str, expires_in: int | None, data_dir: Path | None) -> None:
    """Make a token and show it, once."""
    path = load_settings(data_dir=data_dir).tokens_path
    lifetime = None if expires_in is None else timedelta(days=expires_in)
    with _told_plainly(), changed_tokens(path) as change:
        change.tokens, secret = issue_token(
            change.tokens,
            name=name,
            role=Role[role.upper()],
            now=datetime.now(UTC),
            lifetime=lifetime,
        )
    click.echo(secret)
    click.echo(f"Keep it now: only its hash is in {path}.", err=True)


@command.command(
    name="list",
    epilog=examples("orthanc-graphql token list", settings=("DATA_DIR", "TOKENS_FILE")),
)
@data_dir_option
def list_(data_dir: Path | None) -> None:
    """List the tokens, without the tokens themselves."""
    settings = load_settings(data_dir=data_dir)
    with _told_plainly():
        try:
            tokens = read_tokens(settings.tokens_path)
        except TokensFileMissing:
            # The file that TOKENS_FILE names must be there: the server does not start without it.
            if settings.tokens_file is not None:
                raise
            tokens = ()
    if not tokens:
        click.echo("No tokens.", err=True)
    now = datetime.now(UTC)
    for token in tokens:
        click.echo(_describe(token, now))


@command.command(
    epilog=examples("orthanc-graphql token revoke scanner", settings=("DATA_DIR", "TOKENS_FILE"))
)
@click.argument("name")
@data_dir_option
def revoke(name: str, data_dir: Path | None) -> None:
    """Make a token invalid."""
    path = load_settings(data_dir=data_dir).tokens_path
    with _told_plainly(), changed_tokens(path) as change:
        change.tokens = revoke_token(change.tokens, name)
    click.echo(f'Revoked "{name}".', err=True)


@contextmanager
def _told_plainly() -> Iterator[None]:
    try:
        yield
    except Error as exc:
        raise click.ClickException(exc.message) from exc


def _describe(token: Token, now: datetime) -> str:
    created = f"created {token.created:%Y-%m-%d}"
    if token.expires is None:
        expiry = "never expires"
    else:
        word = "expires" if token.is_valid_at(now) else "expired"
        expiry = f"{word} {token.expires:%Y-%m-%d}"
    return f"{token.name}\t{token.role.name.lower()}\t{created}\t{expiry}"
