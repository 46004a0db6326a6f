"""Shares: links that show some studies to all who have them."""

import io
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Self
from urllib.parse import quote

import segno
import strawberry

from graph.context import Info
from graph.relay import Node, encode_node_id
from graph.types.study import Study
from models import ShareDocument


@strawberry.type(
    description="A link that shows some studies to all who have it, until it expires or is revoked."
)
class Share(Node):
    """One share, without its token."""

    name: str = strawberry.field(description="For people: its recipient or purpose.")
    created_at: datetime = strawberry.field(description="When it was made.")
    created_by: str = strawberry.field(
        description="Who made it: the name of a token, or `oidc:` with the provider's subject."
    )
    expires_at: datetime = strawberry.field(description="When it ends by itself.")
    revoked_at: datetime | None = strawberry.field(
        description="When it was revoked; null while it is not."
    )
    last_used_at: datetime | None = strawberry.field(
        description="When it was used last, to the minute; null when it never was."
    )
    use_count: int = strawberry.field(description="In how many minutes it was used.")
    may_download: bool = strawberry.field(
        description="Whether archives and files may be downloaded, beside pictures and headers."
    )
    study_ids: strawberry.Private[list[str]]

    @classmethod
    def of(cls, share: ShareDocument) -> Self:
        """Show a share."""
        return cls(
            id=encode_node_id("Share", share.id),
            name=share.name,
            created_at=share.created_at,
            created_by=share.created_by,
            expires_at=share.expires_at,
            revoked_at=share.revoked_at,
            last_used_at=share.last_used_at,
            use_count=share.use_count,
            may_download=share.may_download,
            study_ids=share.study_ids,
        )

    @classmethod
    def from_stored(cls, stored: Mapping[str, Any]) -> Self:
        """Show a share as MongoDB returns it."""
        return cls.of(ShareDocument.model_validate(stored))

    @strawberry.field(description="The studies that it shows; deleted ones are left out.")
    async def studies(self, info: Info) -> list[Study]:
        """Load the studies."""
        context = info.context
        context.count_nodes(len(self.study_ids))
        found = await context.loaders.study_by_id.load_many(self.study_ids)
        studies = [stored for stored in found if stored is not None]
        context.accesses.add(studies, "Study")
        return [Study.from_stored(stored) for stored in studies]


@strawberry.type(description="A new share, with its token, which is shown only once.")
class CreateSharePayload:
    """A new share."""

    share: Share = strawberry.field(description="The share.")
    token: str = strawberry.field(
        description="Its token: `Authorization: Bearer <token>` for programs. It is shown once; "
        "only its hash is stored."
    )
    url: str = strawberry.field(
        description="The study browser, limited to the share. Everyone who has it can open it."
    )
    viewer_url: str | None = strawberry.field(
        description="The studies in the OHIF viewer of OHIF_URL; null where there is none."
    )

    @strawberry.field(
        description="`url` as a QR code: an SVG document, for a telephone to open. Show it by a "
        "`data:` URL in an `<img>`."
    )
    def qr_code(self) -> str:
        """Draw the QR code; a quarter of it may be hidden or dirty."""
        drawn = io.BytesIO()
        code = segno.make(self.url, error="q", micro=False)
        code.save(drawn, kind="svg", scale=4, border=4, light="#fff", xmldecl=False)
        return drawn.getvalue().decode()


def share_url(base_url: str, token: str) -> str:
    """Return the address of a share; `base_url` without a slash at its end."""
    return f"{base_url}/s/{token}"


def viewer_url(ohif_url: str, base_url: str, token: str, study_uids: list[str]) -> str:
    """Return the address that opens studies in OHIF by its data source `dicomwebproxy`.

    Args:
        ohif_url: OHIF_URL, without a slash at its end.
        base_url: Of this server, likewise.
        token: Of the share.
        study_uids: What is opened.
    """
    configuration = quote(f"{share_url(base_url, token)}/ohif.json", safe="")
    uids = quote(",".join(study_uids), safe=",")
    return f"{ohif_url}/viewer/dicomwebproxy?url={configuration}&studyInstanceUIDs={uids}"
