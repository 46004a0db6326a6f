"""`orthanc-graphql audit`."""

from datetime import UTC, datetime
from pathlib import Path

import click

from graph.commands.options import data_dir_option, examples, load_settings, run
from models.audit_record import AuditRecord
from services.audit import Action, AuditSearch, parse_since, read_audit
from services.connections import open_database_alone
from services.settings import Settings


@click.command(
    epilog=examples(
        "orthanc-graphql audit --since 2d --action delete",
        "orthanc-graphql audit --patient 12345 --json",
        "orthanc-graphql audit --since 2026-01-01 --until 2026-02-01 --json > 2026-01.jsonl",
        settings=("DATA_DIR", "MONGODB_URL", "MONGODB_DATABASE", "AUDIT_RETENTION_DAYS"),
    )
)
@click.option("--since", metavar="WHEN", help="Not older: 2d, 36h, 15m, or an ISO 8601 date.")
@click.option("--until", metavar="WHEN", help="Older than this.")
@click.option("--patient", "patient_id", metavar="ID", help="PatientID of a patient concerned.")
@click.option(
    "--action", type=click.Choice([action.value for action in Action]), help="What was done."
)
@click.option("--who", "principal", metavar="NAME", help="Name of the token or the user.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object per line.")
@data_dir_option
def command(
    *,
    since: str | None,
    until: str | None,
    patient_id: str | None,
    action: str | None,
    principal: str | None,
    as_json: bool,
    data_dir: Path | None,
) -> None:
    """Show who did what, newest last."""
    settings = load_settings(data_dir=data_dir)

    async def show() -> None:
        now = datetime.now(UTC)
        search = AuditSearch(
            since=None if since is None else parse_since(since, now=now),
            until=None if until is None else parse_since(until, now=now),
            patient_id=patient_id,
            action=None if action is None else Action(action),
            principal=principal,
        )
        await _show(settings, search, as_json=as_json)

    run(show)


async def _show(settings: Settings, search: AuditSearch, *, as_json: bool) -> None:
    is_empty = True
    async with open_database_alone(settings):
        async for record in read_audit(search):
            is_empty = False
            click.echo(_json_line(record) if as_json else _line(record))
    if is_empty:
        # To stderr, so that programs read only records from stdout.
        click.echo("No record was found.", err=True)


def _json_line(record: AuditRecord) -> str:
    line: str = record.model_dump_json(by_alias=True, exclude_none=True)
    return line


def _printable(text: str) -> str:
    # Search texts come from clients and could contain control sequences of a terminal.
    return "".join(character if character.isprintable() else "?" for character in text)


def _line(record: AuditRecord) -> str:
    who = record.principal or "(unknown)"
    where = f" from {record.client_address}" if record.client_address else ""
    subjects = " ".join(record.orthanc_study_ids or record.orthanc_patient_ids)
    count = f"x{record.number_of_objects}"
    if record.minted_urls:
        count += f" {record.minted_urls} URLs"
    parts = (
        f"{record.at:%Y-%m-%dT%H:%M:%S}Z",
        record.action,
        record.outcome,
        f"{who} ({record.role or 'no role'}){where}",
        count,
        record.correlation_id,
        _printable(record.searched or record.detail or "-"),
        subjects or "-",
    )
    return "\t".join(parts)
