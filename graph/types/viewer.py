"""Who is asking, and what they may do: what a page needs to show its buttons."""

from datetime import datetime
from typing import Self

import strawberry

from services.auth.roles import Principal, Role

strawberry.enum(
    Role,
    description="VIEWER: queries, pictures and archives. UPLOADER: also uploads, shares and "
    "labels. ADMIN: also deletions and the comparison with Orthanc.",
)


@strawberry.type(description="Who is asking.")
class Viewer:
    """The caller."""

    name: str = strawberry.field(
        description="The token's name, `oidc:` with the provider's subject, `share:` with the "
        "share's id, or `local` on a server without credentials."
    )
    role: Role = strawberry.field(description="The highest role.")
    expires_at: datetime | None = strawberry.field(
        description="When the credential ends; null when it is valid until it is revoked."
    )
    is_limited_to_share: bool = strawberry.field(
        description="The credential is that of a share: nothing but its studies is shown."
    )
    can_upload: bool = strawberry.field(description="Whether `uploadDicom` is allowed.")
    can_delete: bool = strawberry.field(description="Whether deletions are allowed.")
    can_download: bool = strawberry.field(
        description="Whether archives and files may be downloaded; a share decides it."
    )

    @classmethod
    def of(cls, principal: Principal) -> Self:
        """Show a principal."""
        return cls(
            name=principal.name,
            role=principal.role,
            expires_at=principal.expires_at,
            is_limited_to_share=principal.share_id is not None,
            can_upload=principal.role >= Role.UPLOADER,
            can_delete=principal.role >= Role.ADMIN,
            can_download=principal.may_download,
        )
