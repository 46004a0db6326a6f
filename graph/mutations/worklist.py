"""Mutations of the modality worklist."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Annotated

import strawberry

from graph.context import Info
from graph.execution.audit import recorded
from graph.execution.authorization import RequiresRole
from graph.inputs import NodeId, WorklistEntryInput
from graph.relay import require_node_id
from graph.types.worklist import WorklistEntry
from models import WorklistEntryDocument
from models.worklist import WorklistStatus
from services.audit import Action, AuditEvent
from services.auth.roles import Role, authorize
from services.orthanc.identifiers import orthanc_patient_id

EntryInput = Annotated[
    WorklistEntryInput, strawberry.argument(name="input", description="What is planned.")
]


@strawberry.type
class WorklistMutation:
    """Root fields that change the worklist."""

    @strawberry.mutation(
        description="Plan an examination. Scanners get it within a second.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def create_worklist_entry(self, info: Info, what: EntryInput) -> WorklistEntry:
        """Make an entry."""
        async with _recorded(info, "createWorklistEntry") as event:
            context = info.context
            entry = await context.runtime.worklist.create(what.to_values(), context.scope)
            _describe(event, entry)
        return WorklistEntry.of(entry)

    @strawberry.mutation(
        description="Replace what is planned: parts that are null are removed, but for the UID and "
        "the IDs, which stay; for another patient the UID is a new one unless it is given. One "
        "that is COMPLETED or DISCONTINUED must be opened first.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def update_worklist_entry(
        self, info: Info, node_id: NodeId, what: EntryInput
    ) -> WorklistEntry:
        """Change an entry."""
        async with _recorded(info, "updateWorklistEntry") as event:
            entry_id = require_node_id("WorklistEntry", node_id)
            event.detail = f"updateWorklistEntry {entry_id}"
            context = info.context
            entry = await context.runtime.worklist.update(entry_id, what.to_values(), context.scope)
            _describe(event, entry)
        return WorklistEntry.of(entry)

    @strawberry.mutation(
        description="Set the status of an entry; any may follow any. One that is opened again is "
        "completed only by images that arrive later.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def set_worklist_status(
        self,
        info: Info,
        node_id: NodeId,
        status: Annotated[WorklistStatus, strawberry.argument(description="The new one.")],
    ) -> WorklistEntry:
        """Set a status."""
        async with _recorded(info, "setWorklistStatus") as event:
            entry_id = require_node_id("WorklistEntry", node_id)
            event.detail = f"setWorklistStatus {entry_id} {status.value}"
            context = info.context
            entry = await context.runtime.worklist.set_status(entry_id, status, context.scope)
            event.patient_ids.add(orthanc_patient_id(entry.patient_id))
        return WorklistEntry.of(entry)

    @strawberry.mutation(
        description="Delete an entry; false when it is not there (any more). To keep a trace of a "
        "cancelled examination set its status to DISCONTINUED instead.",
        extensions=[RequiresRole(Role.UPLOADER)],
    )
    async def delete_worklist_entry(self, info: Info, node_id: NodeId) -> bool:
        """Delete an entry."""
        async with _recorded(info, "deleteWorklistEntry") as event:
            entry_id = require_node_id("WorklistEntry", node_id)
            event.detail = f"deleteWorklistEntry {entry_id}"
            context = info.context
            entry = await context.runtime.worklist.delete(entry_id, context.scope)
            if entry is not None:
                _describe(event, entry)
        return entry is not None


@asynccontextmanager
async def _recorded(info: Info, field: str) -> AsyncIterator[AuditEvent]:
    context = info.context
    principal = authorize(context.principal, Role.UPLOADER)
    async with recorded(context.runtime.audit, Action.WORKLIST, principal, detail=field) as event:
        yield event


def _describe(event: AuditEvent, entry: WorklistEntryDocument) -> None:
    event.detail = f"{(event.detail or '').partition(' ')[0]} {entry.id}"
    event.patient_ids.add(orthanc_patient_id(entry.patient_id))
