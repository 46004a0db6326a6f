"""Long work on the event loop, in turns with everybody else's.

50,000 objects of 30 fields take seconds. Completed in one go, nobody would be answered meanwhile,
and no time limit would act.
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from graphql import GraphQLOutputType, GraphQLResolveInfo
from graphql.execution.collect_fields import FieldDetailsList
from graphql.pyutils import AwaitableOrValue, Path
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

TURN_SECONDS = 0.01
"""A picture that is asked for meanwhile waits for some of these."""


class Turns:
    """The turns of one operation, whose fields share them.

    Args:
        clock: In seconds, rising.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._began = clock()

    async def give_way(self) -> None:
        """Return when it is this operation's turn: at once while the last one lasts."""
        while self._clock() - self._began >= TURN_SECONDS:
            began = self._began
            await asyncio.sleep(0)
            if self._began == began:
                # The first of those who waited; the others go on in the same turn.
                self._began = self._clock()
                return


class ListsInTurns(StrawberryGraphQLCoreExecutionContext, ABC):
    """Executes one operation, and completes long lists in turns with other requests."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._turns = Turns()
        self._awaited: Path | None = None

    @abstractmethod
    def is_immediate(self, output_type: GraphQLOutputType, details: FieldDetailsList) -> bool:
        """Tell whether a value and all below it are complete without anything to await."""

    async def complete_awaitable_value(  # noqa: PLR0917  # graphql-core's signature
        self,
        return_type: GraphQLOutputType,
        field_details_list: FieldDetailsList,
        info: "GraphQLResolveInfo[Any]",
        path: Path,
        result: Awaitable[Any],
        position_context: Any,  # noqa: ANN401  # of what is delivered later
    ) -> object:
        """Complete a value that is awaited: what is below it may be awaited, too."""

        async def noted() -> object:
            value = await result
            # Completed next, before anybody else's turn.
            self._awaited = path
            return value

        return await super().complete_awaitable_value(
            return_type, field_details_list, info, path, noted(), position_context
        )

    def complete_iterable_value(  # noqa: PLR0917  # graphql-core's signature
        self,
        item_type: GraphQLOutputType,
        field_details_list: FieldDetailsList,
        info: "GraphQLResolveInfo[Any]",
        path: Path,
        items: Iterable[Any],
        position_context: Any,  # noqa: ANN401  # of what is delivered later
    ) -> AwaitableOrValue[list[Any]]:
        """Complete a list: in turns where that can't part what is loaded together below."""
        may_wait = path is self._awaited and position_context is None
        if may_wait and self.is_immediate(item_type, field_details_list):
            return self._in_turns(item_type, field_details_list, info, path, items)
        return super().complete_iterable_value(
            item_type, field_details_list, info, path, items, position_context
        )

    async def _in_turns(
        self,
        item_type: GraphQLOutputType,
        details: FieldDetailsList,
        info: "GraphQLResolveInfo[Any]",
        path: Path,
        items: Iterable[Any],
    ) -> list[Any]:
        results: list[Any] = []
        for index, item in enumerate(items):
            await self._turns.give_way()
            here = path.add_key(index, None)
            self.complete_list_item_value(item, results, item_type, details, info, here, None)
        return results
