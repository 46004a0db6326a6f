"""Lists on a real MongoDB: filters, orders, pages, and the indexes that serve them."""

import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.embedded.mongod import EmbeddedMongod
from services.query import lists
from tests.real.query_stage import BEGIN, QueryStage, open_query_stage

LIST = """query ($first: Int! = 20, $after: String, $last: Int, $before: String,
                 $filter: StudyFilter, $orderBy: StudyOrder) {
  studies(first: $first, after: $after, last: $last, before: $before, filter: $filter,
          orderBy: $orderBy) {
    nodes { studyInstanceUID } pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
  }
}"""


HALF_A_SURROGATE = base64.urlsafe_b64encode(b'["-orderStudyDate","\\ud800","x"]').decode()


@pytest.fixture(scope="module")
async def stage(
    mongodb: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[QueryStage]:
    """One for all tests of this module: they only read."""
    async with open_query_stage(mongodb, tmp_path_factory.mktemp("lists")) as opened:
        await opened.store_patient("P1", "Müller^Ánna")
        await opened.store_patient("P2", "Yamada^Tarou=山田^太郎")
        await opened.store_study(
            "P1", 1, patient_name="Müller^Ánna", study_date="2020-01-01", accession_number="ACC-1"
        )
        await opened.store_study(
            "P1",
            2,
            patient_name="Müller^Ánna",
            study_date="2020-01-31",
            modalities_in_study=["MR", "SR"],
            study_description="Knee left",
        )
        await opened.store_study("P2", 3, patient_name="Yamada^Tarou=山田^太郎")
        await opened.store_study(
            "P2", 4, patient_name="Yamada^Tarou=山田^太郎", study_date="2020-01-01"
        )
        yield opened


async def numbers(stage: QueryStage, **variables: Any) -> list[int]:
    found = await stage.data(LIST, **variables)
    return [int(node["studyInstanceUID"].split(".")[-1]) for node in found["studies"]["nodes"]]


@pytest.mark.parametrize(
    ("filter_", "expected"),
    [
        ({}, [1, 2, 3, 4]),
        ({"patientID": "P1"}, [1, 2]),
        ({"patientID": "p1"}, []),
        ({"patientName": "ann MULL"}, [1, 2]),
        ({"patientName": "uller"}, []),
        ({"patientName": "山田"}, [3, 4]),
        ({"accessionNumber": "ACC-1"}, [1]),
        ({"studyInstanceUIDs": ["1.2.1", "1.2.3", "9"]}, [1, 3]),
        ({"studyDate": {"from": "2020-01-01", "to": "2020-01-01"}}, [1, 4]),
        ({"studyDate": {"from": "2020-01-02"}}, [2]),
        ({"studyDate": {"to": "2020-01-31"}}, [1, 2, 4]),
        ({"modalities": ["SR", "US"]}, [2]),
        ({"modalities": ["sr"]}, [2]),
        ({"studyInstanceUIDs": []}, []),
        ({"patientID": "P1", "modalities": []}, []),
        ({"text": "knee p1"}, [2]),
        ({"text": "knee p2"}, []),
        ({"updatedSince": "2026-01-01T00:03:00Z"}, [3, 4]),
        ({"updatedSince": "2026-01-01T02:03:00+02:00"}, [3, 4]),
        ({"updatedSince": "2026-01-01T00:03:00"}, [3, 4]),
        ({"patientID": "P1", "modalities": ["MR"]}, [2]),
    ],
)
async def test_a_filter_finds_what_it_says(
    stage: QueryStage, filter_: dict[str, Any], expected: list[int]
) -> None:
    assert sorted(await numbers(stage, filter=filter_)) == expected


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ({"field": "PATIENT_NAME", "direction": "ASC"}, ["Müller^Ánna"] * 2 + ["Yamada"] * 2),
        ({"field": "UPDATED_AT"}, [4, 3, 2, 1]),
        ({"field": "UPDATED_AT", "direction": "ASC"}, [1, 2, 3, 4]),
    ],
)
async def test_an_order_orders(
    stage: QueryStage, order: dict[str, Any], expected: list[Any]
) -> None:
    found = await numbers(stage, orderBy=order)
    if isinstance(expected[0], str):
        assert ([sorted(found[:2]), sorted(found[2:])]) == [[1, 2], [3, 4]]
    else:
        assert found == expected


async def test_the_newest_study_comes_first_and_those_without_date_last(stage: QueryStage) -> None:
    found = await numbers(stage)
    assert (found[0], sorted(found[1:3]), found[3]) == (2, [1, 4], 3)


async def test_pages_hold_every_study_once_forwards_and_backwards(stage: QueryStage) -> None:
    whole = await numbers(stage)
    seen: list[str] = []
    cursor = None
    for has_next in (True, True, True, False):
        found = (await stage.data(LIST, first=1, after=cursor))["studies"]
        seen += [node["studyInstanceUID"] for node in found["nodes"]]
        info = found["pageInfo"]
        assert (info["hasNextPage"], info["hasPreviousPage"]) == (has_next, cursor is not None)
        cursor = info["endCursor"]
    assert seen == [f"1.2.{number}" for number in whole]
    assert await numbers(stage, last=2, before=cursor) == whole[1:3]
    assert await numbers(stage, last=2) == whole[2:]


@pytest.mark.parametrize(
    "variables",
    [
        {"first": 501},
        {"first": -1},
        {"after": "x"},
        {"after": HALF_A_SURROGATE},
        {"filter": {"studyDate": {"from": "2020-02-01", "to": "2020-01-01"}}},
    ],
)
async def test_a_list_that_makes_no_sense_is_refused(
    stage: QueryStage, variables: dict[str, Any]
) -> None:
    _, codes = await stage.run(LIST, **variables)
    assert codes == ["INVALID_INPUT"]


async def test_a_list_is_counted_only_when_asked(stage: QueryStage) -> None:
    page = '{ studies(filter: {patientID: "P1"}) { nodes { studyID } %s } }'
    assert [each.command for each in await stage.asked(page % "")] == ["find"]
    assert [each.command for each in await stage.asked(page % "totalCount")] == [
        "find",
        "aggregate",
    ]
    both = "totalCount totalCountIsExact"
    assert [each.command for each in await stage.asked(page % both)] == ["find", "aggregate"]
    counted = (await stage.data(page % both))["studies"]
    assert (counted["totalCount"], counted["totalCountIsExact"]) == (2, True)


async def test_matches_of_a_filter_are_counted_up_to_a_bound_and_all_studies_exactly(
    stage: QueryStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = "totalCount totalCountIsExact"
    exact = (await stage.data(f"{{ studies {{ {counted} }} }}"))["studies"]
    monkeypatch.setattr(lists, "COUNTED_AT_MOST", 2)
    assert (await stage.data(f"{{ studies {{ {counted} }} }}"))["studies"] == exact
    assert exact["totalCountIsExact"]
    others = '{not: {matches: {patientID: "-"}}}'
    found = (await stage.data(f"{{ studies(where: {others}) {{ {counted} }} }}"))["studies"]
    assert found == {"totalCount": 2, "totalCountIsExact": False}


@pytest.mark.parametrize(
    "filter_",
    [
        {},
        {"patientID": "P1"},
        {"patientName": "mul"},
        {"accessionNumber": "ACC-1"},
        {"studyInstanceUIDs": ["1.2.1", "1.2.2"]},
        {"studyDate": {"from": "2020-01-01", "to": "2020-01-01"}},
        {"modalities": ["MR", "US"]},
        {"text": "knee"},
        {"updatedSince": BEGIN.isoformat()},
    ],
)
@pytest.mark.parametrize("field", ["STUDY_DATE", "PATIENT_NAME", "UPDATED_AT"])
@pytest.mark.parametrize("direction", ["ASC", "DESC"])
async def test_every_filter_in_every_order_uses_an_index(
    stage: QueryStage, filter_: dict[str, Any], field: str, direction: str
) -> None:
    order = {"field": field, "direction": direction}
    (asked,) = await stage.asked(LIST, filter=filter_, orderBy=order)
    assert asked.plan.startswith("IXSCAN")


async def test_patients_are_listed_by_name_and_show_their_studies(stage: QueryStage) -> None:
    data = await stage.data(
        '{ patients(filter: {patientName: "tar"}) { totalCount nodes { patientID patientDisplayName'
        " studies(first: 1) { nodes { studyInstanceUID } pageInfo { hasNextPage } } } } }"
    )
    assert data["patients"] == {
        "totalCount": 1,
        "nodes": [
            {
                "patientID": "P2",
                "patientDisplayName": "Tarou Yamada (山田 太郎)",
                "studies": {
                    "nodes": [{"studyInstanceUID": "1.2.4"}],
                    "pageInfo": {"hasNextPage": True},
                },
            }
        ],
    }


async def test_the_server_says_what_is_behind_it(stage: QueryStage) -> None:
    data = await stage.data(
        "{ server { orthancVersion mongodbVersion storage pacsIntegrationEnabled warnings"
        " numberOfPatients numberOfStudies numberOfInstances } }"
    )
    assert data["server"] == {
        "orthancVersion": None,
        "mongodbVersion": "6.0.5",
        "storage": "orthanc-pacs",
        "pacsIntegrationEnabled": False,
        "warnings": [],
        "numberOfPatients": 2,
        "numberOfStudies": 4,
        "numberOfInstances": 0,
    }
