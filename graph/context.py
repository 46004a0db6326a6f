"""What every resolver may use, made for one request or one WebSocket."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import strawberry

from graph.accesses import Accesses
from graph.authentication import Identify
from graph.loaders import Loaders
from services.access import Principal
from services.errors import LimitExceeded
from services.runtime import Runtime

MAX_HEADERS = 100
"""Headers of one operation: each is a file that Orthanc has to open."""


@dataclass(slots=True, kw_only=True)
class Context:
    """The services, who is asking, and what is shared by the resolvers of an operation.

    Attributes:
        principal: None when nobody could be identified.
        base_url: Absolute address that URLs in the answer start with, without a slash at its end.
        now: The clock, in epoch seconds.
        connection_params: Payload of a WebSocket's `connection_init`.
        identify: Asks anew who it is; None for requests, which end before a credential does.
        loaders: One command of MongoDB per level of a tree.
        nodes_left: Objects that the operation may still answer.
        headers_left: Headers that it may still read from Orthanc.
        accesses: What the audit trail must know before the answer goes out.
    """

    runtime: Runtime
    principal: Principal | None
    base_url: str
    now: Callable[[], float] = time.time
    connection_params: object = None
    identify: Identify | None = field(default=None, repr=False)
    loaders: Loaders = field(init=False)
    nodes_left: int = field(init=False)
    headers_left: int = field(init=False)
    accesses: Accesses = field(default_factory=Accesses)

    def __post_init__(self) -> None:
        """Begin with nothing loaded and nothing counted."""
        self._begin()

    async def for_operation(self) -> "Context":
        """Return the context of one operation: those of a WebSocket run side by side."""
        context = replace(self, accesses=Accesses())
        await context.identify_again()
        return context

    async def begin_event(self) -> None:
        """Forget what was loaded and counted: a new event of a subscription begins."""
        self._begin()
        self.accesses.fields.clear()
        await self.identify_again()

    async def identify_again(self) -> None:
        """Ask who it is: a WebSocket may stay open when its token is revoked or has expired."""
        if self.identify is not None:
            self.principal = await self.identify()

    def _begin(self) -> None:
        self.loaders = Loaders(self.runtime.tree)
        self.nodes_left = self.runtime.settings.query_max_nodes
        self.headers_left = MAX_HEADERS

    def show(self, documents: Sequence[Mapping[str, Any]]) -> None:
        """Count documents that the answer begins with, and whom they are about.

        Raises:
            LimitExceeded: The answer grows too large.
        """
        self.spend_nodes(len(documents))
        self.accesses.see(documents)

    def spend_nodes(self, count: int) -> None:
        """Count objects of the answer, before they are resolved.

        Args:
            count: How many; less than 0 when fewer came than were counted.

        Raises:
            LimitExceeded: The answer grows too large.
        """
        self.nodes_left -= count
        self.accesses.number_of_objects += count
        if self.nodes_left < 0:
            raise LimitExceeded(
                f"The answer has more than {self.runtime.settings.query_max_nodes} objects. "
                "Ask for fewer with `first`, in several queries."
            )

    def spend_header(self) -> None:
        """Count a header, before it is read.

        Raises:
            LimitExceeded: The operation asks for too many.
        """
        self.headers_left -= 1
        if self.headers_left < 0:
            raise LimitExceeded(
                f"A query answers `tags` of at most {MAX_HEADERS} instances. Ask for fewer with "
                "`instances(first: ..., offset: ...)`, in several queries."
            )


Info: TypeAlias = strawberry.Info[Context, None]
"""`info` of resolvers."""
