"""Read the audit trail."""

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from models.audit_record import AuditRecord
from services.database import translated_database_faults
from services.deeds import Action
from services.errors import InvalidInput
from services.orthanc.identifiers import orthanc_ids

_SPAN = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSearch:
    """Which records; what is None does not narrow.

    Attributes:
        since: Not older than this, with time zone.
        patient_id: PatientID of one of the patients concerned, `""` for files without any.
        action: What was done.
        principal: Name of who did it.
    """

    since: datetime | None = None
    patient_id: str | None = None
    action: Action | None = None
    principal: str | None = None


def parse_since(text: str, *, now: datetime) -> datetime:
    """Read a moment in the past.

    Args:
        text: A span before now as `90s`, `15m`, `36h`, `2d`, `4w`, or an ISO 8601 date or time;
            one without a zone is UTC.
        now: The time, with time zone.

    Raises:
        InvalidInput: It is neither.
    """
    span = _SPAN.fullmatch(text.strip())
    try:
        if span:
            return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
        moment = datetime.fromisoformat(text.strip())
    except (ValueError, OverflowError) as exc:
        raise InvalidInput(
            f'"{text}" is no time. Write a span as 2d or 36h, or a date as 2026-01-31.'
        ) from exc
    return moment if moment.tzinfo else moment.replace(tzinfo=now.tzinfo)


async def read_audit(search: AuditSearch) -> AsyncIterator[AuditRecord]:
    """Read records, newest last, in batches as they are taken.

    Args:
        search: Which.

    Raises:
        DatabaseUnavailable: MongoDB does not answer.
    """
    with translated_database_faults():
        async for record in AuditRecord.find(_query(search)).sort("at", "_id"):
            yield record


def _query(search: AuditSearch) -> dict[str, Any]:
    patient = search.patient_id
    query: dict[str, Any] = {
        "at": None if search.since is None else {"$gte": search.since},
        "orthancPatientIds": None if patient is None else orthanc_ids(patient, "", "", "").patient,
        "action": search.action and search.action.value,
        "principal": search.principal,
    }
    return {name: value for name, value in query.items() if value is not None}
