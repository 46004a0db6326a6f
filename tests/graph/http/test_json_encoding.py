"""Results are encoded as orjson does it, in pieces that let others take their turn."""

import asyncio
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from graph.http import json_encoding
from graph.http.json_encoding import PIECE_VALUES, encode_json, json_pieces
from tests.examples import examples

INSTANCE = {"id": "SW5zdGFuY2U6", "rows": 512, "window": None, "frames": [{"url": "/frames/ü"}]}

SHAPES: dict[str, Any] = {
    "nothing": None,
    "an error": {"errors": [{"message": "x", "extensions": {"code": "NOT_FOUND"}}]},
    "a long list": {"data": {"series": {"instances": [INSTANCE] * 10_000}}},
    "a list of lists": [[[1] * 70] * 70] * 70,
    "many members": {str(n): {"value": n} for n in range(20_000)},
    "a large item first": [{"a": [0] * 10_000}, INSTANCE, INSTANCE],
    "a large item last": [INSTANCE, INSTANCE, {"a": [0] * 10_000}],
    "only large items": [[0] * 5_000, [0] * 5_000],
    "empty beside large": {"a": [], "b": {}, "c": [0] * 5_000, "d": [[]] * 5_000},
}


@pytest.mark.parametrize("name", SHAPES)
async def test_the_text_is_that_of_orjson(name: str) -> None:
    assert await encode_json(SHAPES[name]) == orjson.dumps(SHAPES[name])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=60,
)


@pytest.mark.no_cover
@given(value=JSON, piece_values=st.integers(0, 20))
@settings(max_examples=examples(100))
def test_any_text_is_that_of_orjson(value: object, piece_values: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_encoding, "PIECE_VALUES", piece_values)
        assert b"".join(json_pieces(value)) == orjson.dumps(value)


@pytest.mark.parametrize("name", SHAPES)
def test_a_piece_has_a_bounded_number_of_values(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    largest = 0
    dumps = orjson.dumps

    def counting(value: object) -> bytes:
        nonlocal largest
        largest = max(largest, values_in(value))
        return dumps(value)

    monkeypatch.setattr(orjson, "dumps", counting)
    assert b"".join(json_pieces(SHAPES[name]))
    assert largest <= PIECE_VALUES


def values_in(value: Any) -> int:  # noqa: ANN401  # any JSON
    if isinstance(value, dict):
        return sum(1 + values_in(each) for each in value.values())
    return sum(1 + values_in(each) for each in value) if isinstance(value, list) else 0


async def test_others_take_their_turn_while_a_large_result_is_encoded() -> None:
    encoding = asyncio.create_task(encode_json({"data": [INSTANCE] * 100_000}))
    turns = 0
    while not encoding.done():
        turns += 1
        await asyncio.sleep(0)
    assert turns > 10
    assert len(await encoding) > 5_000_000


async def test_what_is_no_json_is_an_error() -> None:
    with pytest.raises(TypeError):
        await encode_json({"data": [object()]})
