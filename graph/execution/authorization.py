"""Authorization of root fields; the fields below them need no further check."""

from typing import Any

from strawberry.extensions.field_extension import (
    AsyncExtensionResolver,
    FieldExtension,
    SyncExtensionResolver,
)

from graph.context import Info
from graph.execution.audit import describe_search
from services.auth.roles import Principal, Role, authorize
from services.errors import Forbidden, Unauthenticated


def require(info: Info, role: Role) -> None:
    """Check the role of the caller of a root field, and note the result for the audit trail.

    Raises:
        Unauthenticated: The caller could not be identified.
        Forbidden: The caller's role is not sufficient.
    """
    context = info.context
    try:
        authorize(context.principal, role)
    except (Unauthenticated, Forbidden) as exc:
        context.accesses.refusals.append((info.field_name, exc.code))
        raise
    context.accesses.fields.append(info.field_name)


def require_network(info: Info) -> Principal:
    """Check that a caller may use other DICOM applications.

    Raises:
        Forbidden: The caller is limited to some studies; other archives do not know these limits.
    """
    principal = authorize(info.context.principal, Role.UPLOADER)
    if not principal.scope.is_all:
        raise Forbidden(
            "This credential is limited to some studies; other archives do not know its limits."
        )
    return principal


class RequiresRole(FieldExtension):
    """Requires a role. Every root field has this extension, and no other field does.

    Args:
        role: The lowest role that may use the field.
        is_search: Whether the field searches for patients, so that its arguments are audited.
    """

    def __init__(self, role: Role, *, is_search: bool = False) -> None:
        self.role = role
        self.is_search = is_search

    def resolve(
        self,
        next_: SyncExtensionResolver,
        source: Any,  # noqa: ANN401  # Strawberry's signature
        info: Info,
        **kwargs: Any,
    ) -> Any:  # noqa: ANN401  # whatever the field resolves to
        """Authorize, then resolve."""
        self._pass(info, kwargs)
        return next_(source, info, **kwargs)

    async def resolve_async(
        self,
        next_: AsyncExtensionResolver,
        source: Any,  # noqa: ANN401  # Strawberry's signature
        info: Info,
        **kwargs: Any,
    ) -> Any:  # noqa: ANN401  # whatever the field resolves to
        """Authorize, then resolve."""
        self._pass(info, kwargs)
        return await next_(source, info, **kwargs)

    def _pass(self, info: Info, arguments: dict[str, Any]) -> None:
        require(info, self.role)
        if self.is_search:
            info.context.accesses.searches.append(describe_search(info.field_name, arguments))
