"""Encodes results as JSON in short turns on the event loop.

A thread would not help, because orjson holds the interpreter lock: one call with 50 MB makes all
other requests wait for 0.1 s and more.
"""

from collections.abc import Collection, Iterator

import orjson

from services.query.turns import CooperativeExecution

PIECE_VALUES = 4_096
"""About the number of values that one call encodes, which takes less than a millisecond."""


_CONTAINERS = frozenset((dict, list))


async def encode_json(value: object) -> bytes:
    """Encode JSON; other requests are answered while a large value is encoded.

    Args:
        value: Dictionaries, lists and scalars, as GraphQL results are.

    Raises:
        TypeError: A value has no representation in JSON.
    """
    turns = CooperativeExecution()
    pieces = []
    for piece in json_pieces(value):
        pieces.append(piece)
        await turns.yield_to_loop()
    return b"".join(pieces)


def json_pieces(value: object) -> Iterator[bytes]:
    """Yield the JSON text of a value in pieces of about `PIECE_VALUES` values.

    Raises:
        TypeError: A value has no representation in JSON.
    """
    if _number_of_values(value) <= PIECE_VALUES:
        yield orjson.dumps(value)
    elif isinstance(value, dict):
        yield from _pieces_of_dict(value)
    elif isinstance(value, list):
        yield from _pieces_of_list(value)


def _pieces_of_dict(members: dict[str, object]) -> Iterator[bytes]:
    separator = b"{"
    for name, value in members.items():
        yield separator + orjson.dumps(name) + b":"
        yield from json_pieces(value)
        separator = b","
    yield b"}"


def _pieces_of_list(items: list[object]) -> Iterator[bytes]:
    separator = b"["
    start = values = 0
    for index, item in enumerate(items):
        values += 1 + _number_of_values(item)
        if values <= PIECE_VALUES:
            continue
        if start < index:
            yield separator + orjson.dumps(items[start:index])[1:-1]
            separator = b","
        yield separator
        yield from json_pieces(item)
        separator = b","
        start, values = index + 1, 0
    if start < len(items):
        yield separator + orjson.dumps(items[start:])[1:-1]
    yield b"]"


def _number_of_values(value: object) -> int:
    """Count the values inside a value, up to a little more than `PIECE_VALUES`."""
    count = 0
    waiting = [value]
    for container in waiting:
        # By type, not isinstance: GraphQL results have no others, and it takes a third of the time.
        values: Collection[object]
        if type(container) is dict:
            values = container.values()
        elif type(container) is list:
            values = container
        else:
            continue
        count += len(values)
        if count > PIECE_VALUES:
            break
        waiting += [each for each in values if type(each) in _CONTAINERS]
    return count
