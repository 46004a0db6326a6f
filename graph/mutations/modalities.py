"""Mutations of modalities: declared, removed, tried."""

from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.audit import recorded
from graph.execution.authorization import RequiresRole, require_network
from graph.types.modality import Echo, Modality
from models.modality import DicomService, RetrieveMethod
from services.audit import Action
from services.auth.roles import Role
from services.modalities.declaration import check_declaration, require_name

Name = Annotated[str, strawberry.argument(description="1 to 64 letters, digits, `-` and `_`.")]


@strawberry.type
class ModalitiesMutation:
    """Root fields that change what this server knows of the network."""

    @strawberry.mutation(
        description="Declare a DICOM application of the network, or change the one of this name. "
        "From then on it can be asked, and may do here what it is allowed.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def declare_modality(  # noqa: PLR0917  # resolvers are called by name
        self,
        info: Info,
        name: Name,
        ae_title: Annotated[
            str, strawberry.argument(description="Its AE title; 1 to 16 characters.")
        ],
        host: Annotated[str, strawberry.argument(description="Host name or IP address.")],
        port: Annotated[
            int, strawberry.argument(description="Its DICOM port, often 104 or 11112.")
        ],
        allows: Annotated[
            list[DicomService] | None,
            strawberry.argument(
                description="What it may be asked for, and what it may do here; null: everything."
            ),
        ] = None,
        retrieve_method: Annotated[
            RetrieveMethod, strawberry.argument(description="How studies are fetched from it.")
        ] = RetrieveMethod.AUTO,
        timeout_seconds: Annotated[
            int, strawberry.argument(description="Longest silence of it, in seconds; 1 to 600.")
        ] = 30,
        description: Annotated[
            str | None, strawberry.argument(description="For people; at most 256 characters.")
        ] = None,
    ) -> Modality:
        """Declare a modality."""
        context = info.context
        async with recorded(
            context.runtime.audit, Action.MODALITY, context.principal, detail="declareModality"
        ) as event:
            declaration = check_declaration(
                name=name,
                ae_title=ae_title,
                host=host,
                port=port,
                allows=allows,
                retrieve_method=retrieve_method,
                timeout_seconds=timeout_seconds,
                description=description,
            )
            # Where data may go from now on is what the trail must tell.
            event.detail = (
                f"declareModality {name} {declaration.ae_title} {declaration.host}:{port}"
            )
            return Modality.of(await context.runtime.modalities.declare(declaration))

    @strawberry.mutation(
        description="Remove a modality: it can't be asked any more, and may do nothing here. "
        "False when there was none of this name.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def remove_modality(self, info: Info, name: Name) -> bool:
        """Remove a modality."""
        context = info.context
        async with recorded(
            context.runtime.audit, Action.MODALITY, context.principal, detail="removeModality"
        ) as event:
            event.detail = f"removeModality {require_name(name)}"
            return await context.runtime.modalities.remove(name)

    @strawberry.mutation(
        description="Try whether a modality is there (C-ECHO). A failed one is an answer that says "
        "what to look at, no error.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def echo_modality(self, info: Info, name: Name) -> Echo:
        """Try a modality."""
        context = info.context
        principal = require_network(info)
        async with recorded(
            context.runtime.audit, Action.MODALITY, principal, detail="echoModality"
        ) as event:
            event.detail = f"echoModality {require_name(name)}"
            record = await context.runtime.modalities.echo(name)
            if record.error is not None:
                event.outcome = record.error.code
        return Echo.of(record)
