"""The audit trail: one record per request, never changed."""

from datetime import datetime
from typing import ClassVar

from beanie import PydanticObjectId
from pydantic import Field
from pymongo import ASCENDING, IndexModel

from models.stored import NamedDocument


class AuditRecord(NamedDocument):
    """Who did what to which patients and studies, when, and with which outcome.

    Patients and studies stand in it by Orthanc's identifiers, which are hashes. What was searched
    for stands in it as it was typed, so the trail may hold names and PatientIDs.
    """

    id: PydanticObjectId = Field(alias="_id")  # type: ignore[assignment]  # others have a text
    """Begins with the second of `at`: in its order records are read."""

    at: datetime
    """When it happened, UTC, milliseconds."""
    action: str
    """`upload`, `view`, `delete` and so on: `services.audit.Action`."""
    outcome: str
    """`ok`, or the code of the error."""
    principal: str | None = None
    """Name of the token or of the provider's user; None: the caller could not be identified."""
    role: str | None = None
    correlation_id: str
    client_address: str | None = None
    """The peer of the connection; behind a proxy on this machine, whom `X-Forwarded-For` names,
    behind another, the proxy."""
    orthanc_patient_ids: list[str]
    orthanc_study_ids: list[str]
    number_of_objects: int = 1
    """How many objects (files, instances, refusals) this record stands for."""
    minted_urls: int | None = None
    """How many signed URLs the answer held."""
    searched: str | None = None
    """What was searched for, found or not: root fields with their arguments, as typed."""
    detail: str | None = None
    """What else is worth knowing: the name of the route or field. No patient data."""
    expires_at: datetime | None = None
    """When MongoDB drops it, None: never."""

    class Settings:
        """Collection and indexes."""

        name = "audit"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("orthancPatientIds", ASCENDING), ("_id", ASCENDING)]),
            # A record without the field is never deleted, and takes no room in the index.
            IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0, sparse=True),
        ]
