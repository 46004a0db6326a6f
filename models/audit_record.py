"""The audit trail: one record per deed, never changed."""

from datetime import datetime
from typing import ClassVar

from pymongo import ASCENDING, IndexModel

from models.stored import NamedDocument


class AuditRecord(NamedDocument):
    """Who did what to which patients and studies, when, and with which outcome.

    Patients and studies stand in it by Orthanc's identifiers, which are hashes: the trail can be
    searched by PatientID and holds none.
    """

    at: datetime
    """When it happened, UTC, milliseconds."""
    action: str
    """`upload`, `view`, `mint`, `archive`, `delete`, `synchronize`, `refusal` or `dropped`."""
    outcome: str
    """`ok`, or the code of the error."""
    principal: str | None = None
    """Name of the token or of the provider's user; None: nobody could be identified."""
    role: str | None = None
    correlation_id: str
    client_address: str | None = None
    """The peer of the connection; behind a proxy on this machine, whom `X-Forwarded-For` names,
    behind another, the proxy."""
    orthanc_patient_ids: list[str]
    orthanc_study_ids: list[str]
    number_of_objects: int = 1
    """How many objects (files, URLs, instances) this record stands for."""
    detail: str | None = None
    """What else is worth knowing: the name of the route or field. No patient data."""
    expires_at: datetime | None = None
    """When MongoDB drops it, None: never."""

    class Settings:
        """Collection and indexes."""

        name = "audit"
        indexes: ClassVar[list[IndexModel]] = [
            IndexModel([("at", ASCENDING), ("_id", ASCENDING)]),
            IndexModel([("orthancPatientIds", ASCENDING), ("at", ASCENDING), ("_id", ASCENDING)]),
            # A record without the field stays for ever.
            IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0),
        ]
