"""Deeds: what the audit trail tells about, and how one is written down."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from bson import ObjectId

from models.names import contract_name
from services.access import Principal

OK = "ok"
"""The outcome of what went well; otherwise it is the code of the error."""


class Action(StrEnum):
    """What can be done to patient data."""

    UPLOAD = "upload"
    VIEW = "view"
    MINT = "mint"
    ARCHIVE = "archive"
    DELETE = "delete"
    SYNCHRONIZE = "synchronize"
    REFUSAL = "refusal"
    DROPPED = "dropped"
    """`number_of_objects` refusals were not written one by one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Deed:
    """What happened.

    Attributes:
        action: What was done or refused.
        outcome: `OK` or the code of an error.
        principal: Who; None when nobody could be identified.
        correlation_id: Of the request, as in the log.
        patient_ids: Orthanc's identifiers of the patients concerned.
        study_ids: Orthanc's identifiers of the studies concerned.
        number_of_objects: How many objects (files, URLs, instances) it stands for.
        client_address: Peer of the connection.
        detail: Name of the field or the route; no patient data.
    """

    action: Action
    principal: Principal | None
    correlation_id: str
    outcome: str = OK
    patient_ids: Sequence[str] = ()
    study_ids: Sequence[str] = ()
    number_of_objects: int = 1
    client_address: str | None = None
    detail: str | None = None


def describe_deed(deed: Deed, *, now: datetime, retention: timedelta | None) -> dict[str, Any]:
    """Turn a deed into the document that is stored, in the form of `AuditRecord`.

    Args:
        deed: What happened.
        now: When, with time zone.
        retention: How long it is kept, None: for ever.
    """
    principal = deed.principal
    fields: dict[str, Any] = {
        "at": now,
        "action": deed.action.value,
        "outcome": deed.outcome,
        "principal": principal.name if principal else None,
        "role": principal.role.name.lower() if principal else None,
        "correlation_id": deed.correlation_id,
        "client_address": deed.client_address,
        "orthanc_patient_ids": sorted(set(deed.patient_ids)),
        "orthanc_study_ids": sorted(set(deed.study_ids)),
        "number_of_objects": deed.number_of_objects,
        "detail": deed.detail,
        "expires_at": None if retention is None else now + retention,
    }
    named = {contract_name(name): value for name, value in fields.items() if value is not None}
    return {"_id": str(ObjectId())} | named
