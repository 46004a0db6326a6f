"""A part of a header, by keywords."""

import pytest

from services.errors import InvalidInput
from services.query.header_json import Header

ELEMENTS = {
    "00080060": {"vr": "CS", "Value": ["CT"]},
    "00100020": {"vr": "LO", "Value": ["1"]},
    "00180060": {"vr": "DS", "Value": [120]},
}
HEADER = Header(ELEMENTS, 200)


@pytest.mark.parametrize(
    ("keywords", "tags"),
    [
        (["KVP", "Modality"], ["00080060", "00180060"]),
        (["PatientName"], []),
        ([], []),
        (["Modality", "Modality"], ["00080060"]),
    ],
)
def test_keywords_choose_elements_in_the_order_of_the_header(
    keywords: list[str], tags: list[str]
) -> None:
    selected = HEADER.selected(keywords)
    assert list(selected.elements) == tags
    assert selected.elements == {tag: ELEMENTS[tag] for tag in tags}
    assert selected.json_bytes < HEADER.json_bytes


@pytest.mark.parametrize("keyword", ["modality", "00080060", "", "x" * 1_000])
def test_what_is_no_keyword_is_refused_with_the_argument(keyword: str) -> None:
    with pytest.raises(InvalidInput, match=r"no keyword of PS3\.6") as refused:
        HEADER.selected([keyword])
    assert refused.value.argument == "only"
    assert len(refused.value.message) < 130
