"""Mutations of forwarding rules."""

from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.audit import recorded
from graph.execution.authorization import RequiresRole
from graph.types.forwarding import ForwardingRule
from services.audit import Action
from services.auth.roles import Role
from services.modalities.declaration import require_name
from services.modalities.forwarding import ForwardingRule as DeclaredRule

RuleName = Annotated[str, strawberry.argument(description="1 to 64 letters, digits, `-` and `_`.")]


@strawberry.type
class ForwardingMutation:
    """Root fields that change forwarding rules."""

    @strawberry.mutation(
        description="Declare a rule that sends studies to a modality when they are stable, or "
        "change the one of this name. It counts for what arrives or changes from now on.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def declare_forwarding_rule(  # noqa: PLR0917  # resolvers are called by name
        self,
        info: Info,
        name: RuleName,
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
            )
            event.detail = f"declareForwardingRule {name} {modality}"
            return ForwardingRule.of(await context.runtime.forwarding.declare(rule))

    @strawberry.mutation(
        description="Remove a rule. Its jobs stay, and no longer wait for a modality that is down. "
        "False when there was none of this name.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def remove_forwarding_rule(self, info: Info, name: RuleName) -> bool:
        """Remove a rule."""
        context = info.context
        async with recorded(
            context.runtime.audit, Action.MODALITY, context.principal, detail="removeForwardingRule"
        ) as event:
            event.detail = f"removeForwardingRule {require_name(name)}"
            return await context.runtime.forwarding.remove(name)
