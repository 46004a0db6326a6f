"""Queries for forwarding rules."""

import strawberry

from graph.context import Info
from graph.execution.authorization import RequiresRole
from graph.types.forwarding import ForwardingRule
from services.auth.roles import Role


@strawberry.type
class ForwardingQuery:
    """Root fields that read forwarding rules."""

    @strawberry.field(
        description="The rules that send what arrives to modalities, by name.",
        extensions=[RequiresRole(Role.ADMIN)],
    )
    async def forwarding_rules(self, info: Info) -> list[ForwardingRule]:
        """List rules."""
        found = await info.context.runtime.forwarding.read_all()
        info.context.count_nodes(len(found))
        return [ForwardingRule.of(rule) for rule in found]
