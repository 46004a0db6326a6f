"""`orthanc-graphql token`: create, list and revoke static tokens."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from graph.commands.options import data_dir_option, examples, load_settings, run
from models.token import TokenDocument
from services.auth.open_mode import remember_credentials
from services.auth.roles import Role
from services.auth.tokens import TokenStore
from services.auth.tokens_file import take_over_tokens_file
from services.connections import open_database_alone
from services.files import write_private
from services.settings import Settings
from services.tasks import finish_in_thread

_ROLES = [role.name.lower() for role in Role]
_SETTINGS = ("DATA_DIR", "MONGODB_URL", "MONGODB_DATABASE")


@click.group(
    epilog=examples(
        "orthanc-graphql token create --role viewer --name worklist",
        "orthanc-graphql token list",
        settings=_SETTINGS,
    )
)
def command() -> None:
    """Make, list and revoke tokens for `Authorization: Bearer <token>`.

    Only their hashes are stored, in MongoDB: that of MONGODB_URL, or the embedded one, which is
    started for the command if no server is running. Running servers notice changes within 2 s.
    """


@command.command(
    epilog=examples(
        "orthanc-graphql token create --role uploader --name scanner --expires-in 365",
        settings=_SETTINGS,
    )
)
@click.option("--name", required=True, help="Who or what uses it; stands in the audit trail.")
@click.option("--role", required=True, type=click.Choice(_ROLES), help="What it allows.")
@click.option("--expires-in", type=click.IntRange(1, 36_500), metavar="DAYS", help="Lifetime.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    help="Only studies with this label are shown; may be given several times.",
)
@click.option(
    "--once-into",
    "file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write it into this file instead of showing it; where the file exists, do nothing.",
)
@data_dir_option
def create(
    *,
    name: str,
    role: str,
    expires_in: int | None,
    labels: tuple[str, ...],
    file: Path | None,
    data_dir: Path | None,
) -> None:
    """Make a token and show it, once."""
    if file is not None and file.exists():
        click.echo(f"The token is in {file}.", err=True)
        return
    settings = load_settings(data_dir=data_dir)
    lifetime = None if expires_in is None else timedelta(days=expires_in)

    async def create_token() -> None:
        async with _opened_tokens(settings) as tokens:
            secret = await tokens.create(
                name=name,
                role=Role[role.upper()],
                now=datetime.now(UTC),
                lifetime=lifetime,
                labels=labels or None,
            )
            await finish_in_thread(remember_credentials, settings.data_dir)
        if file is None:
            click.echo(secret)
            click.echo("Keep it now: only its hash is stored.", err=True)
        else:
            await finish_in_thread(write_private, file, f"{secret}\n")
            click.echo(f"The token is in {file}; only its hash is stored elsewhere.", err=True)

    run(create_token)


@command.command(name="list", epilog=examples("orthanc-graphql token list", settings=_SETTINGS))
@data_dir_option
def list_(data_dir: Path | None) -> None:
    """List the tokens that are not revoked, without the tokens themselves."""
    settings = load_settings(data_dir=data_dir)

    async def list_tokens() -> None:
        async with _opened_tokens(settings) as tokens:
            listed = [token for token in await tokens.read_all() if token.revoked_at is None]
        if not listed:
            click.echo("No tokens.", err=True)
        now = datetime.now(UTC)
        for token in listed:
            click.echo(_describe(token, now))

    run(list_tokens)


@command.command(epilog=examples("orthanc-graphql token revoke scanner", settings=_SETTINGS))
@click.argument("name")
@data_dir_option
def revoke(name: str, data_dir: Path | None) -> None:
    """Make a token invalid."""
    settings = load_settings(data_dir=data_dir)

    async def revoke_token() -> None:
        async with _opened_tokens(settings) as tokens:
            await tokens.revoke(name, now=datetime.now(UTC))
        click.echo(f'Revoked "{name}".', err=True)

    run(revoke_token)


@asynccontextmanager
async def _opened_tokens(settings: Settings) -> AsyncIterator[TokenStore]:
    async with open_database_alone(settings) as database:
        tokens = TokenStore(database)
        await take_over_tokens_file(settings.tokens_path, tokens)
        yield tokens


def _describe(token: TokenDocument, now: datetime) -> str:
    created = f"created {token.created_at:%Y-%m-%d}"
    if token.expires_at is None:
        expiry = "never expires"
    else:
        word = "expires" if token.is_valid_at(now) else "expired"
        expiry = f"{word} {token.expires_at:%Y-%m-%d}"
    limit = [] if token.labels is None else [f"labels {', '.join(token.labels)}"]
    return "\t".join([token.id, token.role, created, expiry, *limit])
