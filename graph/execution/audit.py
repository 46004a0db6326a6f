"""Writes what requests and operations do into the audit trail, with their correlation id."""

import dataclasses
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import orjson
from starlette.requests import HTTPConnection
from strawberry.extensions import SchemaExtension

from graph.authentication import principal_of
from graph.context import AccessLog
from graph.state import client_address, correlation_id, runtime_of
from models.names import contract_name
from services.audit import OK, Action, Audit, AuditEvent
from services.auth.roles import Principal
from services.errors import Error, Forbidden, FrameUrlInvalid, Unauthenticated
from services.ingest.results import StoreResult

_REFUSALS = (Unauthenticated, Forbidden, FrameUrlInvalid)

_SEARCH_MAX_CHARACTERS = 300
"""Longest description of one root field. Longer arguments are lists of UIDs, or attempts to fill
the disk."""

_NOT_SEARCHED = frozenset({"first", "after", "last", "before", "order_by"})
"""Arguments that choose a page of a list; they are not searches."""

_ARGUMENT_NAMES = {"filter_": "filter", "node_id": "id"}
"""Public names of arguments whose Python name differs."""


def new_event(action: Action, principal: Principal | None, *, detail: str) -> AuditEvent:
    """Begin the record of an action of this request.

    Args:
        action: What is done.
        principal: Who does it.
        detail: Name of the field or the route.
    """
    return AuditEvent(
        action=action,
        principal=principal,
        correlation_id=correlation_id.get(),
        client_address=client_address.get(),
        detail=detail,
    )


@asynccontextmanager
async def recorded(
    audit: Audit, action: Action, principal: Principal | None, *, detail: str
) -> AsyncIterator[AuditEvent]:
    """Record an action when it is done or has failed, before the answer is sent.

    The record of a view is queued. That of an upload may wait in memory while MongoDB is not
    available, because an error would hide which files are stored. Other actions fail if their
    record can't be written; repeating them is safe.

    Args:
        audit: The trail.
        action: What is done.
        principal: Who does it.
        detail: Name of the field or the route.

    Raises:
        DatabaseUnavailable: The record can't be written, and no more records can wait.
    """
    event = new_event(action, principal, detail=detail)
    try:
        yield event
    except BaseException as exc:
        event.outcome = _code_of(exc)
        raise
    finally:
        if action is Action.VIEW:
            await audit.enqueue(event)
        elif action is Action.UPLOAD:
            await audit.record_or_queue(event)
        else:
            await audit.record(event)


def add_stored(event: AuditEvent, results: Iterable[StoreResult]) -> None:
    """Add the results of the files to the record of an upload."""
    results = list(results)
    event.number_of_objects = len(results)
    for result in results:
        if result.ids is not None:
            event.patient_ids.add(result.ids.patient)
            event.study_ids.add(result.ids.study)
    codes = {result.error.code for result in results if result.error is not None}
    if codes:
        event.outcome = ",".join(sorted(codes))


async def record_refusal(connection: HTTPConnection, error: Error) -> None:
    """Record who was refused, and at which route.

    Args:
        connection: The request.
        error: The answer; errors that are not refusals are not recorded.
    """
    if not isinstance(error, _REFUSALS):
        return
    scope = connection.scope
    # Do not look up credentials for forged URLs: an attacker could send many.
    principal = await principal_of(connection) if isinstance(error, Forbidden) else None
    path = getattr(scope.get("route"), "path", "(no route)")
    detail = f"{scope.get('method', 'WEBSOCKET')} {path}"
    event = new_event(Action.REFUSAL, principal, detail=detail)
    event.outcome = error.code
    await runtime_of(connection).audit.enqueue(event)


async def record_accesses(
    audit: Audit, accesses: AccessLog, principal: Principal | None, *, outcome: str = OK
) -> None:
    """Record the searches, views, signed URLs and refusals of an operation.

    Searches, views and URLs of one operation share a record; refusals have their own.

    Args:
        audit: The trail.
        accesses: What the operation did; it is emptied.
        principal: Who sent it.
        outcome: `OK`, or the code of the error that ended the operation.

    Raises:
        DatabaseUnavailable: Too many records wait to be written; the answer must not be sent.
    """
    done = accesses.drain()
    if done.refusals:
        names, codes = (sorted(set(parts)) for parts in zip(*done.refusals, strict=True))
        refused = new_event(Action.REFUSAL, principal, detail=",".join(names))
        refused.outcome = ",".join(codes)
        await audit.enqueue(refused)
    is_view = bool(done.searches) or done.is_new_view
    if not is_view and not done.minted:
        return
    event = new_event(
        Action.VIEW if is_view else Action.MINT,
        principal,
        detail=",".join([*done.fields, *sorted(done.minted)]),
    )
    event.outcome = outcome
    event.patient_ids, event.study_ids = done.patient_ids, done.study_ids
    event.number_of_objects = done.number_of_objects
    event.minted_urls = done.minted.total() or None
    event.searched = "; ".join(done.searches) or None
    await audit.enqueue(event)


def describe_search(field_name: str, arguments: Mapping[str, object]) -> str:
    """Describe what a root field searches for.

    Args:
        field_name: Its public name.
        arguments: Its arguments by their Python names.

    Returns:
        The name, and the arguments as JSON if there are any; 300 characters at most.
    """
    searched = {
        _ARGUMENT_NAMES.get(name, contract_name(name)): _given(value)
        for name, value in arguments.items()
        if value is not None and name not in _NOT_SEARCHED
    }
    if not searched:
        return field_name
    return _shortened(f"{field_name} {orjson.dumps(searched, default=str).decode()}")


def describe_parameters(route: str, parameters: Iterable[tuple[str, str]]) -> str:
    """Describe what a route searches for by its path and query; 300 characters at most."""
    return _shortened(f"{route} {orjson.dumps(dict(parameters)).decode()}")


def _shortened(text: str) -> str:
    if len(text) > _SEARCH_MAX_CHARACTERS:
        return text[: _SEARCH_MAX_CHARACTERS - 1] + "…"
    return text


def _given(value: object) -> object:
    """Return the given fields of an input object, by their public names."""
    if isinstance(value, list):
        return [_given(part) for part in value]
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        return value
    parts = {part.name: getattr(value, part.name) for part in dataclasses.fields(value)}
    return {
        contract_name(name.rstrip("_")): _given(part)
        for name, part in parts.items()
        if part is not None
    }


def _code_of(exc: BaseException) -> str:
    return exc.code if isinstance(exc, Error) else Error.code


class AuditedOperation(SchemaExtension):
    """Records what an operation did before its answer is sent, whether it succeeded or failed.

    An operation that can't be recorded fails: no data is shown without a record. This is the
    outermost extension, so that it also records operations that another extension ended.
    """

    async def on_execute(self) -> AsyncIterator[None]:
        """Record a query or a mutation."""
        outcome = OK
        try:
            yield
        except BaseException as exc:
            outcome = _code_of(exc)
            raise
        finally:
            await self._record(outcome)

    async def on_stream_result(self, result: object) -> AsyncIterator[None]:
        """Record an event of a subscription, or its refusal."""
        del result
        await self._record(OK)
        yield

    async def _record(self, outcome: str) -> None:
        context: Any = self.execution_context.context
        await record_accesses(
            context.runtime.audit, context.accesses, context.principal, outcome=outcome
        )
