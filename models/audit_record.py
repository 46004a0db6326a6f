"""The audit trail: one record per request, never changed.

A page of a worklist names a hundred patients and studies, so identifiers are stored as the 20 bytes
that they are and not as their 44 characters. Records of earlier releases hold the characters.
"""

import re
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, ClassVar

from beanie import PydanticObjectId
from pydantic import BeforeValidator, Field
from pymongo import ASCENDING, IndexModel

from models.stored import NamedDocument

_ORTHANC_ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{8}){4}", re.ASCII)
_ID_BYTES = 20


def pack_id(orthanc_id: str) -> bytes | str:
    """Return an identifier as it is stored; what is none stays as it is."""
    if _ORTHANC_ID.fullmatch(orthanc_id) is None:
        return orthanc_id
    return bytes.fromhex(orthanc_id.replace("-", ""))


def pack_ids(orthanc_ids: Iterable[str]) -> bytes | list[str]:
    """Return identifiers as one value, their bytes after each other; as they are if one is none."""
    ids = list(orthanc_ids)
    packed = [one for one in map(pack_id, ids) if isinstance(one, bytes)]
    return b"".join(packed) if len(packed) == len(ids) else ids


def _unpacked(stored: object) -> object:
    if isinstance(stored, bytes):
        starts = range(0, len(stored), _ID_BYTES)
        return [_dashed(stored[start : start + _ID_BYTES]) for start in starts]
    if isinstance(stored, list):
        return [_dashed(one) if isinstance(one, bytes) else one for one in stored]
    return stored


def _dashed(packed: bytes) -> str:
    return packed.hex("-", -4)


StoredIds = Annotated[list[str], BeforeValidator(_unpacked)]
"""Orthanc's identifiers, in whichever form they are stored."""


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
    orthanc_patient_ids: StoredIds = Field(default_factory=list)
    """Stored as an array, for the index."""
    orthanc_study_ids: StoredIds = Field(default_factory=list)
    """Stored as one value: they are not searched for."""
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
            # Without `_id`, by which the records of one patient are sorted: half as large.
            IndexModel([("orthancPatientIds", ASCENDING)], sparse=True),
            # A record without the field is never deleted, and takes no room in the index.
            IndexModel([("expiresAt", ASCENDING)], expireAfterSeconds=0, sparse=True),
        ]
