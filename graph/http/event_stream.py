"""Subscriptions as server-sent events: graphql-sse, distinct connections mode.

They serve networks whose proxies block WebSockets. A client sends `Accept: text/event-stream`. If
it also accepts JSON, as several clients do for every operation, only subscriptions get events.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send
from strawberry.http.streaming import SSETransport
from strawberry.types.graphql import OperationType

from graph.http.accept import parse_accept
from graph.http.client_slots import ClientSlots
from graph.http.graphql_errors import EVENT_STREAM, JSON, RESPONSE_JSON, refused
from services.errors import InvalidInput, TooManyRequests
from services.tasks import cancel_and_wait


class SubscriptionStream(SSETransport):
    """Strawberry's transport, limited to subscriptions."""

    def accepts(self, accept: str) -> bool:
        """Return whether a client names this media type."""
        return accepts_events(accept)

    def allowed_operation_types(
        self, allowed_operation_types: set[OperationType]
    ) -> Iterable[OperationType]:
        """Allow subscriptions."""
        del allowed_operation_types
        return (OperationType.SUBSCRIPTION,)


def accepts_events(accept: str | None) -> bool:
    """Return whether `Accept` names `text/event-stream`; wildcards do not."""
    return any(one == EVENT_STREAM for one in _media_types(accept))


def accepts_json(accept: str | None) -> bool:
    """Return whether the client also accepts JSON."""
    wanted = {JSON, RESPONSE_JSON, "application/*", "*/*"}
    return not wanted.isdisjoint(_media_types(accept))


def _media_types(accept: str | None) -> list[str]:
    try:
        return [one.media_type for one in parse_accept(accept)]
    except InvalidInput:
        return ["*/*"]


class EventStream(StreamingResponse):
    """The events of one subscription, which counts as an open connection of its client.

    Args:
        events: As text.
        slots: Limit the open connections of one client.
        headers: Of the response.
        is_stopping: Whether the server stops: the stream then ends without `complete`, so that its
            client connects again, to another process.
    """

    def __init__(
        self,
        events: AsyncGenerator[str, None],
        slots: ClientSlots,
        headers: Mapping[str, str],
        *,
        is_stopping: Callable[[], bool],
    ) -> None:
        super().__init__(
            until_stopping(events, is_stopping),
            headers={**headers, "Cache-Control": "no-store, no-transform"},
        )
        self._slots = slots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send events until the client disconnects, or refuse a client with too many streams."""
        try:
            with self._slots.hold(scope):
                await super().__call__(scope, receive, send)
        except TooManyRequests as exc:
            await refused(Request(scope), exc)(scope, receive, send)


_LOOK_SECONDS = 1.0
"""Interval at which a stream that waits for an event checks whether the server stops."""


async def until_stopping(
    events: AsyncGenerator[str, None], is_stopping: Callable[[], bool]
) -> AsyncGenerator[str, None]:
    """Yield events until they end or the server stops.

    Args:
        events: The source, which is closed at the end.
        is_stopping: Whether the server stops.
    """
    following: asyncio.Future[str] | None = None
    try:
        while not is_stopping():
            if following is None:
                following = asyncio.ensure_future(anext(events))
            await asyncio.wait({following}, timeout=_LOOK_SECONDS)
            if not following.done():
                continue
            try:
                event = following.result()
            except StopAsyncIteration:
                return
            finally:
                following = None
            yield event
    finally:
        if following is not None:
            await cancel_and_wait(following)
        await events.aclose()
