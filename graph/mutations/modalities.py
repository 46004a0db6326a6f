"""Mutations of modalities and forwarding rules: declared, removed, tried, used."""

from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.audit import recorded
from graph.execution.authorization import RequiresRole, require_network
from graph.relay import require_node_id
from graph.types.forwarding import ForwardingRule
from graph.types.job import Job
from graph.types.modality import Echo, Modality
from models.forwarding import StudyOrigin
from models.modality import DicomService, RetrieveMethod
from services.audit import Action
from services.auth.roles import Role
from services.errors import InvalidInput, NotFound, PacsDisabled
from services.modalities.declaration import check_declaration, require_name
from services.modalities.forwarding import ForwardingRule as DeclaredRule
from services.modalities.retrieve import new_retrieve, start_retrieve
from services.modalities.send import new_send

_STUDIES_MAX = 500
"""Studies of one job."""

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
        *,
        use_tls: Annotated[
            bool,
            strawberry.argument(
                description="Encrypt connections to it (PS3.15 B.12); needs DICOM_TLS_CERTIFICATE."
            ),
        ] = False,
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
                use_tls=use_tls,
            )
            # Where data may go from now on is what the trail must tell.
            event.detail = (
                f"declareModality {name} {declaration.ae_title} {declaration.host}:{port}"
                f"{' TLS' if use_tls else ''}"
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
        description="Fetch studies from a modality as a job. Only what is missing here is fetched; "
        "a retrieve of the same that is under way is answered, and not doubled.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def retrieve_studies(
        self,
        info: Info,
        modality: Annotated[str, strawberry.argument(description="`name` of the modality.")],
        study_instance_uids: Annotated[
            list[str],
            strawberry.argument(
                name="studyInstanceUIDs", description="StudyInstanceUIDs (0020,000D); 1 to 500."
            ),
        ],
        series_instance_uids: Annotated[
            list[str] | None,
            strawberry.argument(
                name="seriesInstanceUIDs",
                description="Only these series of the studies; null: all. At most 500.",
            ),
        ] = None,
    ) -> Job:
        """Fetch studies."""
        context = info.context
        principal = require_network(info)
        async with recorded(
            context.runtime.audit, Action.RETRIEVE, principal, detail="retrieveStudies"
        ) as event:
            event.detail = f"retrieveStudies {require_name(modality)}"
            new = new_retrieve(modality, study_instance_uids, series_instance_uids or [])
            event.number_of_objects = len(new.study_instance_uids)
            await context.runtime.modalities.require(modality)
            if context.runtime.orthanc is None:
                raise PacsDisabled
            job = await start_retrieve(
                context.runtime.jobs, new, principal, correlation_id=event.correlation_id
            )
        return Job.of(job)

    @strawberry.mutation(
        description="Send studies to a modality as a job. A send of the same that is under way is "
        "answered, and not doubled.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def send_studies(
        self,
        info: Info,
        modality: Annotated[str, strawberry.argument(description="`name` of the modality.")],
        node_ids: Annotated[
            list[strawberry.ID],
            strawberry.argument(name="ids", description="The `id`s of the studies; 1 to 500."),
        ],
        *,
        commit: Annotated[
            bool,
            strawberry.argument(
                description="Ask the modality to confirm that it keeps them (storage commitment)."
            ),
        ] = False,
    ) -> Job:
        """Send studies."""
        context = info.context
        principal = require_network(info)
        async with recorded(
            context.runtime.audit, Action.SEND, principal, detail="sendStudies"
        ) as event:
            event.detail = f"sendStudies {require_name(modality)}"
            if not 1 <= len(node_ids) <= _STUDIES_MAX:
                raise InvalidInput(f"ids: 1 to {_STUDIES_MAX} studies.", argument="ids")
            study_ids = [require_node_id("Study", one) for one in node_ids]
            found = await context.loaders.study_by_id.load_many(study_ids)
            studies = [study for study in found if study is not None]
            if len(studies) < len(study_ids):
                raise NotFound("There is no such study.")
            event.study_ids.update(study_ids)
            event.patient_ids.update(study["orthancPatientId"] for study in studies)
            await context.runtime.modalities.require_service(
                modality, DicomService.STORE, commit=commit
            )
            if context.runtime.orthanc is None:
                raise PacsDisabled
            new = new_send(modality, study_ids, commit=commit)
            job = await context.runtime.jobs.start(
                new, principal, correlation_id=event.correlation_id
            )
        return Job.of(job)

    @strawberry.mutation(
        description="Test the connection to a modality (C-ECHO). A failure is a result that says "
        "what to check, not an error.",
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

    @strawberry.mutation(
        description="Declare a rule that sends studies to a modality when they are stable, or "
        "change the one of this name. It counts for what arrives or changes from now on.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def declare_forwarding_rule(  # noqa: PLR0917  # resolvers are called by name
        self,
        info: Info,
        name: Name,
        modality: Annotated[
            str, strawberry.argument(description="`name` of the modality that gets the studies.")
        ],
        modalities: Annotated[
            list[str] | None,
            strawberry.argument(description="A series of one of these, as `CT`; null: any."),
        ] = None,
        calling_ae_titles: Annotated[
            list[str] | None,
            strawberry.argument(
                name="callingAETitles",
                description="Stored in Orthanc from one of these AE titles; null: any way.",
            ),
        ] = None,
        labels: Annotated[
            list[str] | None, strawberry.argument(description="One of these labels; null: any.")
        ] = None,
        study_description: Annotated[
            str | None,
            strawberry.argument(
                description="StudyDescription without regard to case, with `*` and `?`; null: any."
            ),
        ] = None,
        origins: Annotated[
            list[StudyOrigin] | None,
            strawberry.argument(
                description="How the study came into the archive; null: RECEIVED, so that copies "
                "that this server makes are sent only by rules that name them."
            ),
        ] = None,
        *,
        commit: Annotated[
            bool, strawberry.argument(description="Ask for storage commitment.")
        ] = False,
    ) -> ForwardingRule:
        """Declare a rule."""
        context = info.context
        audit, detail = context.runtime.audit, "declareForwardingRule"
        async with recorded(audit, Action.MODALITY, context.principal, detail=detail) as event:
            rule = DeclaredRule(
                name=require_name(name),
                destination=require_name(modality),
                modalities=modalities,
                calling_ae_titles=calling_ae_titles,
                labels=labels,
                study_description=study_description,
                commit=commit,
                origins=[StudyOrigin.RECEIVED] if origins is None else origins,
            )
            event.detail = f"declareForwardingRule {name} {modality}"
            return ForwardingRule.of(await context.runtime.forwarding.declare(rule))

    @strawberry.mutation(
        description="Remove a rule. Its jobs stay, and no longer wait for a modality that is down. "
        "False when there was none of this name.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def remove_forwarding_rule(self, info: Info, name: Name) -> bool:
        """Remove a rule."""
        context = info.context
        async with recorded(
            context.runtime.audit, Action.MODALITY, context.principal, detail="removeForwardingRule"
        ) as event:
            event.detail = f"removeForwardingRule {require_name(name)}"
            return await context.runtime.forwarding.remove(name)
