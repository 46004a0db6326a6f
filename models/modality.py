"""DICOM applications of the network that this server knows."""

from datetime import datetime
from enum import StrEnum
from typing import ClassVar

from pymongo import IndexModel

from models.dicom_error import DicomErrorRecord
from models.stored import NamedDocument, NamedModel


class DicomService(StrEnum):
    """What a modality may be asked for, and what it may do here."""

    ECHO = "ECHO"
    FIND = "FIND"
    FIND_WORKLIST = "FIND_WORKLIST"
    GET = "GET"
    MOVE = "MOVE"
    STORE = "STORE"
    STORAGE_COMMITMENT = "STORAGE_COMMITMENT"


class RetrieveMethod(StrEnum):
    """How studies are fetched from a modality."""

    AUTO = "AUTO"
    """C-GET where it is offered, else C-MOVE."""
    GET = "GET"
    MOVE = "MOVE"


class EchoRecord(NamedModel):
    """The outcome of one C-ECHO."""

    at: datetime
    milliseconds: int
    error: DicomErrorRecord | None = None
    """None when it succeeded."""


class ModalityDocument(NamedDocument):
    """A modality; `_id` is its name: 1 to 64 letters, digits, `-` and `_`."""

    ae_title: str
    """1 to 16 characters."""
    host: str
    """Name or address."""
    port: int
    description: str | None = None
    allows: list[DicomService]
    retrieve_method: RetrieveMethod
    timeout_seconds: int
    """Longest silence."""
    use_tls: bool = False
    """Whether connections to it are encrypted (PS3.15 B.12)."""
    created_at: datetime
    updated_at: datetime
    last_echo: EchoRecord | None = None
    removed_at: datetime | None = None
    """When it was removed; the document goes when Orthanc has forgotten it, too."""

    class Settings:
        """Collection: a few documents, always read as a whole."""

        name = "modalities"
        indexes: ClassVar[list[IndexModel]] = []
