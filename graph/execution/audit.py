"""What the faces of the server tell the audit trail, with the request's correlation id."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.requests import HTTPConnection
from strawberry.extensions import SchemaExtension

from graph.authentication import principal_of
from graph.context import AccessLog
from graph.state import client_address, correlation_id, runtime_of
from services.audit import OK, Action, Audit, AuditEvent
from services.auth.roles import Principal
from services.errors import Error, Forbidden, FrameUrlInvalid, Unauthenticated
from services.ingest.results import StoreResult

_REFUSALS = (Unauthenticated, Forbidden, FrameUrlInvalid)


_MAY_WAIT = frozenset({Action.UPLOAD})
"""Deeds whose senders lose more by an error than the trail does by a late record: an error would
hide which of their files are stored. Of others there is one outcome, and asking again is safe."""


@dataclass(slots=True)
class AuditedObjects:
    """Whom and what a deed concerns; filled in while it is done.

    Attributes:
        patient_ids: Orthanc's identifiers of patients.
        study_ids: Orthanc's identifiers of studies.
        number_of_objects: Files, URLs or instances that it stands for.
        outcome: `OK`, or a code where a deed fails without an exception.
    """

    patient_ids: set[str] = field(default_factory=set)
    study_ids: set[str] = field(default_factory=set)
    number_of_objects: int = 1
    outcome: str = OK

    def add_stored(self, results: Iterable[StoreResult]) -> None:
        """Take over what an upload did."""
        results = list(results)
        self.number_of_objects = len(results)
        for result in results:
            if result.ids is not None:
                self.patient_ids.add(result.ids.patient)
                self.study_ids.add(result.ids.study)
        codes = {result.error.code for result in results if result.error is not None}
        if codes:
            self.outcome = ",".join(sorted(codes))


@asynccontextmanager
async def recorded(
    audit: Audit, action: Action, principal: Principal | None, *, detail: str
) -> AsyncIterator[AuditedObjects]:
    """Write a deed down when it is done or has failed, before its answer goes out.

    That of an upload may wait in memory while MongoDB is away.

    Args:
        audit: The trail.
        action: What is done.
        principal: Who does it.
        detail: Name of the field or the route.

    Raises:
        DatabaseUnavailable: It can't be written down now, nor wait where it may.
    """
    subjects = AuditedObjects()
    try:
        yield subjects
    except BaseException as exc:
        subjects.outcome = exc.code if isinstance(exc, Error) else Error.code
        raise
    finally:
        record = audit.record_or_queue if action in _MAY_WAIT else audit.record
        await record(_deed(subjects, action, principal, detail))


async def note(
    audit: Audit,
    action: Action,
    principal: Principal | None,
    subjects: AuditedObjects,
    *,
    detail: str,
) -> None:
    """Hand a view, a batch of minted URLs, an archive or a refusal over to the trail.

    Raises:
        DatabaseUnavailable: Too much waits to be written; the answer must not go out.
    """
    await audit.note(_deed(subjects, action, principal, detail))


async def note_refusal(connection: HTTPConnection, error: Error) -> None:
    """Tell the trail when an error is a refusal: who came, to which route.

    Args:
        connection: The request.
        error: What it is answered with; one that is no refusal is passed over.
    """
    if not isinstance(error, _REFUSALS):
        return
    scope = connection.scope
    # Forged URLs come without a credential, or with one that must not cost a look-up.
    known = await principal_of(connection) if isinstance(error, Forbidden) else None
    path = getattr(scope.get("route"), "path", "(no route)")
    subjects = AuditedObjects(outcome=error.code)
    await note(
        runtime_of(connection).audit,
        Action.REFUSAL,
        known,
        subjects,
        detail=f"{scope.get('method', 'WEBSOCKET')} {path}",
    )


async def note_accesses(audit: Audit, accesses: AccessLog, principal: Principal | None) -> None:
    """Tell the trail what an operation showed, minted and was refused; one record of each kind.

    Args:
        audit: The trail.
        accesses: Begins anew.
        principal: Who asked.

    Raises:
        DatabaseUnavailable: Too much waits to be written; the answer must not go out.
    """
    taken = accesses.take()
    for name, code in taken.refusals:
        refused = AuditedObjects(outcome=code)
        await note(audit, Action.REFUSAL, principal, refused, detail=name)
    if taken.is_new_view:
        viewed = AuditedObjects(taken.patient_ids, taken.study_ids, taken.number_of_objects)
        await note(audit, Action.VIEW, principal, viewed, detail=",".join(taken.fields))
    if taken.minted:
        minted = AuditedObjects(taken.patient_ids, taken.study_ids, taken.minted.total())
        await note(audit, Action.MINT, principal, minted, detail=",".join(sorted(taken.minted)))


def _deed(
    subjects: AuditedObjects, action: Action, principal: Principal | None, detail: str
) -> AuditEvent:
    return AuditEvent(
        action=action,
        outcome=subjects.outcome,
        principal=principal,
        correlation_id=correlation_id.get(),
        patient_ids=tuple(subjects.patient_ids),
        study_ids=tuple(subjects.study_ids),
        number_of_objects=subjects.number_of_objects,
        client_address=client_address.get(),
        detail=detail,
    )


class AuditedOperation(SchemaExtension):
    """Hands what an operation did over to the audit trail before its answer goes out.

    What can't be handed over fails the operation: nothing is shown that is not written down.
    """

    async def on_execute(self) -> AsyncIterator[None]:
        """Tell of a query or a mutation."""
        yield
        await self._note()

    async def on_stream_result(self, result: object) -> AsyncIterator[None]:
        """Tell of an event of a subscription, or of its refusal."""
        del result
        await self._note()
        yield

    async def _note(self) -> None:
        context = self.execution_context.context
        await note_accesses(context.runtime.audit, context.accesses, context.principal)
