"""Mutations of shares."""

from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.audit import recorded
from graph.execution.authorization import RequiresRole
from graph.inputs import CreateShareInput, NodeId
from graph.relay import require_node_id
from graph.types.share import CreateSharePayload, Share, share_url, viewer_url
from services.audit import Action
from services.auth.roles import Role, authorize
from services.errors import InvalidInput, NotFound

_STUDIES_MAX = 100
"""Studies of one share, checked before they are looked up."""


@strawberry.type
class SharingMutation:
    """Root fields that make and end shares."""

    @strawberry.mutation(
        description="Create a link to some studies. Everyone who has the link can see them. Its "
        "token is shown once.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def create_share(
        self,
        info: Info,
        what: Annotated[
            CreateShareInput,
            strawberry.argument(name="input", description="What it shows, and for how long."),
        ],
    ) -> CreateSharePayload:
        """Make a share."""
        context = info.context
        principal = authorize(context.principal, Role.UPLOADER)
        async with recorded(
            context.runtime.audit, Action.SHARE, principal, detail="createShare"
        ) as event:
            study_ids = [require_node_id("Study", one) for one in what.study_ids[:_STUDIES_MAX]]
            if len(what.study_ids) > _STUDIES_MAX:
                raise InvalidInput(f"studyIds: at most {_STUDIES_MAX} studies in one share.")
            found = await context.loaders.study_by_id.load_many(study_ids)
            studies = [study for study in found if study is not None]
            if len(studies) < len(study_ids):
                raise NotFound("There is no such study.")
            made = await context.runtime.sharing.create(
                name=what.name,
                study_ids=study_ids,
                expires_at=what.expires_at,
                may_download=what.may_download,
                principal=principal,
            )
            event.detail = f"createShare {made.share.id}"
            event.study_ids.update(study_ids)
            event.patient_ids.update(study["orthancPatientId"] for study in studies)
        ohif_url = context.runtime.settings.ohif_url
        uids = [study["studyInstanceUID"] for study in studies]
        return CreateSharePayload(
            share=Share.of(made.share),
            token=made.token,
            url=share_url(context.base_url, made.token),
            viewer_url=ohif_url and viewer_url(ohif_url, context.base_url, made.token, uids),
        )

    @strawberry.mutation(
        description="End a share: within 2 seconds its link, and the URLs of pictures and files "
        "that were signed for it, stop working. Only its creator and administrators may do "
        "this.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def revoke_share(self, info: Info, node_id: NodeId) -> Share:
        """End a share."""
        context = info.context
        principal = authorize(context.principal, Role.UPLOADER)
        async with recorded(
            context.runtime.audit, Action.SHARE, principal, detail="revokeShare"
        ) as event:
            share_id = require_node_id("Share", node_id)
            event.detail = f"revokeShare {share_id}"
            share = await context.runtime.sharing.revoke(share_id, principal)
            event.study_ids.update(share.study_ids)
        return Share.of(share)
