"""Filters and orders of studies on what the indexer wrote, and the indexes that serve them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from services.dicom.header import (
    ImageModule,
    InstanceHeader,
    PatientModule,
    SeriesModule,
    StudyModule,
)
from services.embedded.mongod import EmbeddedMongod
from services.index.indexer import Indexer
from services.index.record import IndexRecord
from services.orthanc.identifiers import orthanc_ids
from tests.real.query_stage import QueryStage, open_query_stage

LIST = """query ($filter: StudyFilter, $where: StudyWhere, $orderBy: StudyOrder, $first: Int! = 20,
                 $after: String) {
  studies(filter: $filter, where: $where, orderBy: $orderBy, first: $first, after: $after) {
    nodes { studyInstanceUID } pageInfo { endCursor hasNextPage }
  }
}"""


def record(  # by name
    study: int,
    *,
    patient: str = "P1",
    name: str | None = None,
    sex: str | None = None,
    birth_date: str | None = None,
    date: str | None = None,
    time: str | None = None,
    description: str | None = None,
    accession_number: str | None = None,
    physician: str | None = None,
    institution: str | None = None,
    modality: str = "CT",
    body_part: str | None = None,
    frames: int = 1,
    size: int = 1000,
    series: int = 1,
) -> IndexRecord:
    """Return a record of a study with one instance in each series."""
    uids = (f"1.2.{study}", f"1.2.{study}.{series}", f"1.2.{study}.{series}.1")
    header = InstanceHeader(
        patient=PatientModule(
            patient_id=patient, patient_name=name, patient_birth_date=birth_date, patient_sex=sex
        ),
        study=StudyModule(
            study_instance_uid=uids[0],
            study_date=date,
            study_time=time,
            study_description=description,
            accession_number=accession_number,
            referring_physician_name=physician,
            institution_name=institution,
        ),
        series=SeriesModule(
            series_instance_uid=uids[1],
            series_number=series,
            modality=modality,
            body_part_examined=body_part,
        ),
        image=ImageModule(has_pixel_data=frames > 0),
        sop_instance_uid=uids[2],
    )
    return IndexRecord(
        header=header,
        ids=orthanc_ids(patient, *uids),
        revision="00000001",
        file_size_bytes=size,
        number_of_frames=frames,
        not_renderable_reason=None if frames else "It has no pixels.",
    )


STUDIES = [
    record(
        1,
        sex="F",
        birth_date="1970-01-02",
        date="2020-01-01",
        description="Thorax nativ",
        accession_number="B",
        physician="Müller^Anna",
        institution="St. Marien-Hospital",
        body_part="CHEST",
    ),
    record(1, series=2, modality="SR", frames=0, size=24),
    record(
        2,
        sex="f",
        birth_date="1980-01-02",
        date="2020-01-01",
        time="10:00:00",
        description="Knie rechts",
        accession_number="A",
        physician="Huber^Max",
        modality="MR",
        body_part="KNEE",
    ),
    record(3, patient="P0", sex="M", date="2021-01-01", modality="SR", frames=0),
    record(4, patient="P1", date="2022-01-01", modality="ct"),
    record(5, patient="P1"),
]


@pytest.fixture(scope="module")
async def stage(
    mongodb: EmbeddedMongod, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[QueryStage]:
    """One for all tests of this module: they only read."""
    async with open_query_stage(mongodb, tmp_path_factory.mktemp("filters")) as opened:
        indexer = Indexer(opened.runtime.database)
        for one in STUDIES:
            await indexer.index([one])
        yield opened


async def numbers(stage: QueryStage, **variables: Any) -> list[int]:
    found = await stage.data(LIST, **variables)
    return [int(node["studyInstanceUID"].split(".")[-1]) for node in found["studies"]["nodes"]]


FILTERS: list[tuple[dict[str, Any], list[int]]] = [
    ({"patientSex": "F"}, [1, 2]),
    ({"patientSex": "m"}, [3]),
    ({"patientBirthDate": {"from": "1970-01-02", "to": "1970-01-02"}}, [1]),
    ({"patientBirthDate": {"to": "1990-01-01"}}, [1, 2]),
    ({"patientBirthDate": {"from": "1975-01-01"}}, [2]),
    ({"studyDescription": "thor"}, [1]),
    ({"studyDescription": "rechts knie"}, [2]),
    ({"studyDescription": "rax"}, []),
    ({"studyDescription": "muller"}, []),
    ({"referringPhysicianName": "anna mueller"}, [1]),
    ({"institutionName": "marien"}, [1]),
    ({"institutionName": "marienhospital"}, [1]),
    ({"bodyPartExamined": "Chest"}, [1]),
    ({"bodyPartExamined": "CHE"}, []),
    ({"hasFrames": True}, [1, 2, 4, 5]),
    ({"hasFrames": False}, [3]),
    ({"patientSex": "F", "bodyPartExamined": "KNEE", "hasFrames": True}, [2]),
]


@pytest.mark.parametrize(("filter_", "expected"), FILTERS)
async def test_a_filter_finds_what_it_says(
    stage: QueryStage, filter_: dict[str, Any], expected: list[int]
) -> None:
    assert sorted(await numbers(stage, filter=filter_)) == expected
    assert sorted(await numbers(stage, where={"matches": filter_})) == expected
    others = await numbers(stage, where={"not": {"matches": filter_}})
    assert sorted([*others, *expected]) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(("filter_", "expected"), FILTERS)
@pytest.mark.parametrize(
    "field",
    ["STUDY_DATE", "PATIENT_NAME", "UPDATED_AT", "CREATED_AT", "PATIENT_ID", "ACCESSION_NUMBER"],
)
async def test_every_filter_in_every_order_uses_an_index(
    stage: QueryStage, filter_: dict[str, Any], expected: list[int], field: str
) -> None:
    order = {"field": field, "direction": "ASC"}
    (asked,) = await stage.asked(LIST, filter=filter_, orderBy=order)
    assert asked.plan.startswith("IXSCAN")
    where = {"or": [{"matches": filter_}, {"matches": {"patientID": "P0"}}]}
    (asked,) = await stage.asked(LIST, where=where, orderBy=order)
    assert asked.plan.startswith("IXSCAN")
    assert expected is not None


CT, SR, P1 = (
    {"matches": one}
    for one in ({"modalities": ["CT"]}, {"modalities": ["SR"]}, {"patientID": "P1"})
)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({}, [1, 2, 3, 4, 5]),
        ({"and": []}, [1, 2, 3, 4, 5]),
        ({"or": []}, []),
        ({"not": {}}, []),
        ({"or": [{}, CT]}, [1, 2, 3, 4, 5]),
        ({"and": [CT, SR]}, [1]),
        ({"or": [CT, SR]}, [1, 3, 5]),
        ({"not": {"or": [CT, SR]}}, [2, 4]),
        ({"and": [P1, {"not": CT}, {"or": [{"matches": {"patientSex": "F"}}, SR]}]}, [2]),
        ({"matches": {"patientID": "P1"}, "or": [SR], "not": {"not": CT}}, [1]),
    ],
)
async def test_filters_can_be_combined(
    stage: QueryStage, where: dict[str, Any], expected: list[int]
) -> None:
    assert sorted(await numbers(stage, where=where)) == expected
    narrowed = await numbers(stage, where=where, filter={"patientID": "P0"})
    assert narrowed == [number for number in expected if number == 3]


async def test_large_combinations_are_refused_with_a_sentence(stage: QueryStage) -> None:
    deep: dict[str, Any] = CT
    for _ in range(8):
        deep = {"not": deep}
    for where in (deep, {"or": [CT] * 64}):
        _, codes = await stage.run(LIST, where=where)
        assert codes == ["INVALID_INPUT"]
    assert await numbers(stage, where=deep["not"])
    assert await numbers(stage, where={"or": [CT] * 63})


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        ("CREATED_AT", [1, 2, 3, 4, 5]),
        ("PATIENT_ID", [3, {1, 2, 4, 5}]),
        ("ACCESSION_NUMBER", [{3, 4, 5}, 2, 1]),
    ],
)
async def test_an_order_orders_pages(stage: QueryStage, field: str, expected: list[Any]) -> None:
    groups = [{one} if isinstance(one, int) else one for one in expected]
    for direction in ("ASC", "DESC"):
        found: list[int] = []
        cursor = None
        while True:
            order = {"field": field, "direction": direction}
            page = (await stage.data(LIST, orderBy=order, first=2, after=cursor))["studies"]
            found += [int(one["studyInstanceUID"].split(".")[-1]) for one in page["nodes"]]
            cursor = page["pageInfo"]["endCursor"]
            if not page["pageInfo"]["hasNextPage"]:
                break
        assert len(found) == 5
        for group in groups if direction == "ASC" else groups[::-1]:
            assert {found.pop(0) for _ in group} == group


async def test_modalities_of_the_whole_list_are_counted_when_asked_for(stage: QueryStage) -> None:
    query = "{ studies(first: 1, %s) { nodes { studyID } modalityCounts { modality count } } }"
    found = await stage.data(query % "filter: {hasFrames: true}")
    assert found["studies"]["modalityCounts"] == [
        {"modality": "CT", "count": 2},
        {"modality": "MR", "count": 1},
        {"modality": "SR", "count": 1},
        {"modality": "ct", "count": 1},
    ]
    assert [one.command for one in await stage.asked(query % "")] == ["find", "aggregate"]
    patient = await stage.data(
        '{ patient(patientID: "P0") { studies { modalityCounts { modality count } } } }'
    )
    counts = patient["patient"]["studies"]["modalityCounts"]
    assert counts == [{"modality": "SR", "count": 1}]


async def test_priors_are_the_earlier_studies_of_the_patient_in_one_command(
    stage: QueryStage,
) -> None:
    query = """query ($modality: String, $first: Int! = 10) { studies { nodes { studyInstanceUID
      priors(modality: $modality, first: $first) { studyInstanceUID } } } }"""

    async def priors(**variables: Any) -> dict[str, list[str]]:
        nodes = (await stage.data(query, **variables))["studies"]["nodes"]
        return {
            one["studyInstanceUID"]: [prior["studyInstanceUID"] for prior in one["priors"]]
            for one in nodes
        }

    assert await priors() == {
        "1.2.4": ["1.2.2", "1.2.1"],
        "1.2.3": [],
        "1.2.2": ["1.2.1"],
        "1.2.1": [],
        "1.2.5": [],
    }
    assert (await priors(modality="mr"))["1.2.4"] == ["1.2.2"]
    assert (await priors(first=1))["1.2.4"] == ["1.2.2"]
    assert (await priors(first=0))["1.2.4"] == []
    asked = await stage.asked(query)
    assert [one.command for one in asked] == ["find", "aggregate"]
    _, codes = await stage.run(query, first=501)
    assert codes


async def test_sizes_are_added_up(stage: QueryStage) -> None:
    found = await stage.data(
        '{ study(studyInstanceUID: "1.2.1") { totalBytes series { totalBytes'
        " instances { fileSizeBytes } } } }"
    )
    assert found["study"] == {
        "totalBytes": 1024.0,
        "series": [
            {"totalBytes": 1000.0, "instances": [{"fileSizeBytes": 1000.0}]},
            {"totalBytes": 24.0, "instances": [{"fileSizeBytes": 24.0}]},
        ],
    }


async def test_a_series_has_an_archive_that_names_its_study(stage: QueryStage) -> None:
    data = await stage.data(
        '{ study(studyInstanceUID: "1.2.1") { orthancStudyId series {'
        " orthancSeriesId archiveUrl } } }"
    )
    study = data["study"]
    for series in study["series"]:
        url = series["archiveUrl"].removeprefix("http://here")
        reference = stage.runtime.frames.signer.verify_archive(url.encode(), now=1_700_000_000)
        assert reference.series_id == series["orthancSeriesId"]
        assert reference.study_id == study["orthancStudyId"]
