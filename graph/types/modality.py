"""Modalities: DICOM applications of the network."""

from datetime import datetime
from typing import Self

import strawberry

from graph.context import Info
from graph.relay import Node, encode_node_id
from graph.types.dicom_error import DicomError
from models.modality import DicomService, EchoRecord, ModalityDocument, RetrieveMethod
from services.auth.roles import Role

strawberry.enum(
    DicomService, description="What may be requested from a modality, and what it may do here."
)
strawberry.enum(
    RetrieveMethod,
    description="AUTO: C-GET where it is offered, else C-MOVE to this server's AE title.",
)


@strawberry.type(description="The outcome of a C-ECHO.")
class Echo:
    """The outcome of a C-ECHO."""

    at: datetime = strawberry.field(description="When it was tried.")
    succeeded: bool = strawberry.field(description="Whether the modality answered as it should.")
    milliseconds: int = strawberry.field(description="How long it took.")
    error: DicomError | None = strawberry.field(description="What to check; null if it succeeded.")

    @classmethod
    def of(cls, record: EchoRecord) -> Self:
        """Show an outcome."""
        return cls(
            at=record.at,
            succeeded=record.error is None,
            milliseconds=record.milliseconds,
            error=None if record.error is None else DicomError.of(record.error),
        )


@strawberry.type(description="A DICOM application of the network: archive, workstation or scanner.")
class Modality(Node):
    """One modality."""

    name: str = strawberry.field(
        description="Its name here: letters, digits, `-` and `_`; at most 64."
    )
    ae_title: str = strawberry.field(description="Its AE title; 1 to 16 characters.")
    description: str | None = strawberry.field(description="For people; null when there is none.")
    allows: list[DicomService] = strawberry.field(
        description="What it may be asked for, and what it may do here."
    )
    retrieve_method: RetrieveMethod = strawberry.field(
        description="How studies are fetched from it."
    )
    timeout_seconds: int = strawberry.field(
        description="Longest silence of it, in seconds; a hanging one is given up after at most "
        "twice that."
    )
    use_tls: bool = strawberry.field(
        description="Whether connections to it are encrypted (PS3.15 B.12)."
    )
    last_echo: Echo | None = strawberry.field(
        description="The last `echoModality`; null when there was none."
    )
    host: strawberry.Private[str]
    port: strawberry.Private[int]

    @strawberry.field(description="Host and port; for administrators, null for others.")
    def address(self, info: Info) -> str | None:
        """Write host and port."""
        principal = info.context.principal
        if principal is None or principal.role < Role.ADMIN:
            return None
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"

    @classmethod
    def of(cls, modality: ModalityDocument) -> Self:
        """Show a modality."""
        return cls(
            id=encode_node_id("Modality", modality.id),
            name=modality.id,
            ae_title=modality.ae_title,
            description=modality.description,
            allows=list(modality.allows),
            retrieve_method=modality.retrieve_method,
            timeout_seconds=modality.timeout_seconds,
            use_tls=modality.use_tls,
            last_echo=None if modality.last_echo is None else Echo.of(modality.last_echo),
            host=modality.host,
            port=modality.port,
        )
