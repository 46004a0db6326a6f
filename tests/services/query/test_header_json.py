"""A part of a header, by keywords."""

import asyncio
from typing import Any

import orjson
import pytest

from services.dicom.json_model import member_pieces
from services.errors import InvalidInput
from services.query import header_json
from services.query.header_json import Header

ELEMENTS: dict[str, dict[str, Any]] = {
    "00080060": {"vr": "CS", "Value": ["CT"]},
    "00081030": {"vr": "LO", "Value": ['}{ "0018" \\ \\" \\\\', "\x1f é"]},
    "00081032": {
        "vr": "SQ",
        "Value": [{"00180060": {"vr": "DS", "Value": [1]}, "00081030": {"vr": "LO"}}, {}],
    },
    "00100020": {"vr": "LO", "Value": ["1"]},
    "00180060": {"vr": "DS", "Value": [120]},
}
HEADER = Header(orjson.dumps(ELEMENTS))


@pytest.fixture(params=["decoded", "cut out"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Short headers are decoded, long ones are cut."""
    if request.param == "cut out":
        monkeypatch.setattr(header_json, "_DECODED_BYTES", 0)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("keywords", "tags"),
    [
        (["KVP", "Modality"], ["00080060", "00180060"]),
        (["StudyDescription"], ["00081030"]),
        (["ProcedureCodeSequence", "PatientID"], ["00081032", "00100020"]),
        (["PatientName"], []),
        ([], []),
        (["Modality", "Modality"], ["00080060"]),
    ],
)
async def test_keywords_choose_elements_in_the_order_of_the_header(
    keywords: list[str], tags: list[str]
) -> None:
    selected = await HEADER.selected(keywords)
    assert list(selected.elements) == tags
    assert selected.elements == {tag: ELEMENTS[tag] for tag in tags}
    assert selected.json_bytes < HEADER.json_bytes


@pytest.mark.parametrize("keyword", ["modality", "00080060", "", "x" * 1_000])
async def test_what_is_no_keyword_is_refused_with_the_argument(keyword: str) -> None:
    with pytest.raises(InvalidInput, match=r"not a keyword of PS3\.6") as refused:
        await HEADER.selected([keyword])
    assert refused.value.argument == "only"
    assert len(refused.value.message) < 130


@pytest.mark.parametrize("count", [0, 1, 512, 513, 2_000])
def test_a_long_sequence_is_written_in_pieces_as_one(count: int) -> None:
    item = {"00200032": {"vr": "DS", "Value": [1.5]}}
    model = {"vr": "SQ", "Value": [item] * count}
    pieces = list(member_pieces("52009230", model))
    assert b"{" + b"".join(pieces) + b"}" == orjson.dumps({"52009230": model})
    assert (len(pieces) > 1) == (count > 512)


@pytest.mark.no_cover
async def test_others_are_served_while_a_part_of_a_long_header_is_read() -> None:
    item = {"00209113": {"vr": "SQ", "Value": [{"00200032": {"vr": "DS", "Value": [1, 2, 3]}}]}}
    items = orjson.dumps([item] * 50_000)
    head = b'{"00080060":{"vr":"CS","Value":["MR"]},"52009230":{"vr":"SQ","Value":'
    header = Header(head + items + b"}}")
    selecting = asyncio.create_task(header.selected(["Modality"]))
    turns = 0
    while not selecting.done():
        await asyncio.sleep(0)
        turns += 1
    assert selecting.result().elements == {"00080060": {"vr": "CS", "Value": ["MR"]}}
    # While it is decoded no other thread runs: there would be one turn before and one after.
    assert turns > 5
