"""Root fields ask `services.auth.roles.authorize`; what is below them was let through by them."""

from typing import Any

from strawberry.extensions.field_extension import (
    AsyncExtensionResolver,
    FieldExtension,
    SyncExtensionResolver,
)

from graph.context import Info
from services.auth.roles import Role, authorize
from services.errors import Forbidden, Unauthenticated


def admit(info: Info, role: Role) -> None:
    """Let the caller of a root field pass, or refuse; the audit trail will know of both.

    Raises:
        Unauthenticated: Nobody could be identified.
        Forbidden: The role is too small.
    """
    context = info.context
    try:
        authorize(context.principal, role)
    except (Unauthenticated, Forbidden) as exc:
        context.accesses.refusals.append((info.field_name, exc.code))
        raise
    context.accesses.fields.append(info.field_name)


class RequiresRole(FieldExtension):
    """Lets principals of a role pass. It belongs on every root field, and on no other.

    Args:
        role: The least role.
    """

    def __init__(self, role: Role) -> None:
        self.role = role

    def resolve(
        self,
        next_: SyncExtensionResolver,
        source: Any,  # noqa: ANN401  # Strawberry's signature
        info: Info,
        **kwargs: Any,
    ) -> Any:  # noqa: ANN401  # whatever the field resolves to
        """Authorize, then resolve."""
        admit(info, self.role)
        return next_(source, info, **kwargs)

    async def resolve_async(
        self,
        next_: AsyncExtensionResolver,
        source: Any,  # noqa: ANN401  # Strawberry's signature
        info: Info,
        **kwargs: Any,
    ) -> Any:  # noqa: ANN401  # whatever the field resolves to
        """Authorize, then resolve."""
        admit(info, self.role)
        return await next_(source, info, **kwargs)
