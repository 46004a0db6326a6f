"""Trees on a real MongoDB: what is answered, in which order, and how many commands it takes."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from graph.context import AccessLog, Context
from graph.relay import encode_node_id
from services.auth.roles import LOCAL_ADMIN, Principal, Role
from services.embedded.mongod import EmbeddedMongod
from tests.real.query_stage import REVISION, QueryStage, open_query_stage, orthanc_id

TREE = """{
  patients { nodes { patientID studies { totalCount nodes { studyInstanceUID patient { patientID }
    series { seriesNumber study { studyInstanceUID } thumbnail { url }
      instances { instanceNumber series { seriesNumber } frame { url } } } } } } }
}"""


@pytest.fixture
async def stage(mongodb: EmbeddedMongod, tmp_path: Path) -> AsyncIterator[QueryStage]:
    async with open_query_stage(mongodb, tmp_path) as opened:
        yield opened


async def test_a_tree_takes_one_command_per_level_however_wide_it_is(stage: QueryStage) -> None:
    for patient in ("P1", "P2", "P3"):
        await stage.store_patient(patient, "A^B", studies=2)
        for number in (1, 2):
            study = await stage.store_study(patient, number)
            # Of different shapes: no study, no series waits for another to be of its kind.
            for series in range(number):
                await stage.store_series(study, series, 200 * series)
    asked = await stage.asked(TREE)
    # Commands of one level go out at the same time, in any order.
    assert sorted((each.command, each.collection) for each in asked) == sorted(
        [
            ("find", "patients"),
            ("aggregate", "patients"),
            ("find", "patients"),
            ("find", "series"),
            ("find", "studies"),
            ("find", "instances"),
            ("find", "series"),
        ]
    )
    assert not [each for each in asked[1:] if "COLLSCAN" in each.plan]


async def test_a_wide_series_comes_in_one_answer(stage: QueryStage) -> None:
    await stage.store_patient("P1", "A^B")
    study = await stage.store_study("P1", 1)
    await stage.store_series(study, 1, 2_000)
    query = '{ study(studyInstanceUID: "1.2.1") { series { instances { sopInstanceUID } } } }'
    assert [each.command for each in await stage.asked(query)] == ["find", "find", "find"]


async def test_children_come_in_the_order_of_the_contract(stage: QueryStage) -> None:
    await stage.store_patient("P1", "A^B")
    study = await stage.store_study("P1", 1)
    for number in (3, None, 1):
        await stage.store_series(study, number, 3)
    data = await stage.data(
        '{ study(studyInstanceUID: "1.2.1") { series { seriesNumber'
        " instances { instanceNumber } part: instances(first: 1, offset: 1) { instanceNumber }"
        " none: instances(offset: 3) { instanceNumber } } } }"
    )
    assert data["study"]["series"] == [
        {
            "seriesNumber": number,
            "instances": [{"instanceNumber": 1}, {"instanceNumber": 2}, {"instanceNumber": 3}],
            "part": [{"instanceNumber": 2}],
            "none": [],
        }
        for number in (None, 1, 3)
    ]


async def test_a_cine_is_one_instance_with_many_frames(stage: QueryStage) -> None:
    await stage.store_patient("P1", "A^B")
    study = await stage.store_study("P1", 1)
    series = await stage.store_series(study, 1, 1, frames=120)
    instance = orthanc_id(series, 0)
    data = await stage.data(
        '{ instance(sopInstanceUID: "1.3.1.0") { numberOfFrames isRenderable sopClassName'
        " orthancUrl frames { orthancFrameIndex orthancInstanceId }"
        " last: frames(first: 5, offset: 119) { index frameNumber"
        " url(windowCenter: 40, windowWidth: 400, maxSize: 256) urlExpiresAt }"
        " none: frame(index: 120) { index } } }"
    )
    found = data["instance"]
    assert found["frames"] == [
        {"orthancFrameIndex": index, "orthancInstanceId": instance} for index in range(120)
    ]
    (last,) = found["last"]
    url = last.pop("url")
    assert url.startswith("http://here/frames/v2/")
    assert url.endswith(f"/{instance}/{REVISION}/119/w40x400-s256.png")
    assert last == {
        "index": 119,
        "frameNumber": 120,
        "urlExpiresAt": "2023-11-14T22:50:00+00:00",
    }
    assert (found["none"], found["numberOfFrames"], found["isRenderable"]) == (None, 120, True)
    assert (found["sopClassName"], found["orthancUrl"]) == ("CT Image Storage", None)


async def test_what_has_no_pixels_says_why(stage: QueryStage) -> None:
    await stage.store_patient("P1", "A^B")
    study = await stage.store_study("P1", 1)
    await stage.store_series(study, 1, 1, frames=0)
    data = await stage.data(
        '{ series(seriesInstanceUID: "1.3.1") { thumbnail { url } instances { frames { url }'
        " frame { url } isRenderable notRenderableReason } } }"
    )
    assert data["series"] == {
        "thumbnail": None,
        "instances": [
            {
                "frames": [],
                "frame": None,
                "isRenderable": False,
                "notRenderableReason": "It has no pixels.",
            }
        ],
    }


async def test_node_finds_every_type_again_and_nothing_else(stage: QueryStage) -> None:
    await stage.store_patient("P1", "A^B")
    study = await stage.store_study("P1", 1)
    series = await stage.store_series(study, 1, 1)
    data = await stage.data(
        '{ study(studyInstanceUID: "1.2.1") { id patient { id } series { id instances { id } } } }'
    )
    found = data["study"]
    ids = {
        "Patient": found["patient"]["id"],
        "Study": found["id"],
        "Series": found["series"][0]["id"],
        "Instance": found["series"][0]["instances"][0]["id"],
    }
    assert ids["Series"] == encode_node_id("Series", series)
    query = "query ($id: ID!) { node(id: $id) { __typename id } }"
    for type_name, node_id in ids.items():
        node = (await stage.data(query, id=node_id))["node"]
        assert node == {"__typename": type_name, "id": node_id}
    for wrong in ("x", encode_node_id("Study", orthanc_id("nobody"))):
        assert await stage.data(query, id=wrong) == {"node": None}


async def test_of_two_patients_with_one_study_uid_the_one_that_changed_last_is_shown(
    stage: QueryStage,
) -> None:
    await stage.store_patient("P1", "A^B")
    await stage.store_patient("P2", "C^D")
    await stage.store_study("P1", 7, study_instance_uid="1.2.3")
    await stage.store_study("P2", 8, study_instance_uid="1.2.3")
    data = await stage.data('{ study(studyInstanceUID: "1.2.3") { patient { patientID } } }')
    assert data == {"study": {"patient": {"patientID": "P2"}}}


@pytest.mark.parametrize(
    ("principal", "code"),
    [(None, "UNAUTHENTICATED"), (Principal("v", Role.VIEWER), None)],
)
async def test_queries_need_a_viewer(
    stage: QueryStage, principal: Principal | None, code: str | None
) -> None:
    _, codes = await stage.run("{ studies { totalCount } }", principal=principal)
    assert codes == ([] if code is None else [code])


async def test_negative_windows_are_refused(stage: QueryStage) -> None:
    await stage.store_patient("P1", "A^B")
    study = await stage.store_study("P1", 1)
    await stage.store_series(study, 1, 1)
    for field in ("instances(first: -1) { id }", "instances { frames(offset: -1) { index } }"):
        query = f'{{ series(seriesInstanceUID: "1.3.1") {{ {field} }} }}'
        assert (await stage.run(query))[1] == ["INVALID_INPUT"]


async def test_too_many_instances_are_refused_before_they_are_read(stage: QueryStage) -> None:
    await stage.store_patient("P1", "A^B")
    study = await stage.store_study("P1", 1)
    await stage.store_series(study, 1, 1)
    documents = stage.runtime.database["series"]
    await documents.update_one({}, {"$set": {"numberOfInstances": 60_000}})
    query = '{ study(studyInstanceUID: "1.2.1") { series { instances%s { id } } } }'
    assert (await stage.run(query % ""))[1] == ["LIMIT_EXCEEDED"]
    assert (await stage.run(query % "(offset: 1)"))[1] == ["LIMIT_EXCEEDED"]
    for part in ("(first: 500)", "(offset: 59000)", "(offset: 70000)"):
        assert (await stage.run(query % part))[1] == []


async def test_too_many_series_are_refused_before_they_are_read(stage: QueryStage) -> None:
    await stage.store_patient("P1", "A^B")
    await stage.store_study("P1", 1, number_of_series=60_000)
    query = '{ study(studyInstanceUID: "1.2.1") { series { id } } }'
    assert (await stage.run(query))[1] == ["LIMIT_EXCEEDED"]


async def test_what_is_not_rolled_up_yet_counts_when_it_is_read(stage: QueryStage) -> None:
    await stage.store_patient("P1", "A^B")
    study = await stage.store_study("P1", 1, number_of_series=0)
    await stage.store_series(study, 1, 1)
    settings = stage.runtime.settings.model_copy(update={"query_max_nodes": 1})
    small = replace(stage, runtime=replace(stage.runtime, settings=settings))
    query = '{ study(studyInstanceUID: "1.2.1") { series { id } } }'
    assert (await small.run(query))[1] == ["LIMIT_EXCEEDED"]


async def test_a_study_shows_its_patient_before_the_patient_is_written(stage: QueryStage) -> None:
    fields = {
        "patient_name": "A^B",
        "patient_birth_date": "1970-01-02",
        "patient_sex": "F",
    }
    await stage.store_study("P1", 1, **fields)
    query = (
        "{ studies { nodes { patient { orthancPatientId patientID patientName patientBirthDate"
        " patientSex patientDisplayName numberOfStudies hasConflictingDemographics } } } }"
    )
    assert (await stage.data(query))["studies"]["nodes"] == [
        {
            "patient": {
                "orthancPatientId": orthanc_id("P1"),
                "patientID": "P1",
                "patientName": "A^B",
                "patientBirthDate": "1970-01-02",
                "patientSex": "F",
                "patientDisplayName": "B A",
                "numberOfStudies": 1,
                "hasConflictingDemographics": False,
            }
        }
    ]


@pytest.mark.parametrize(
    ("demographics", "is_conflict"),
    [
        ([("A^B", "1970-01-02"), ("A^B", None), (None, None)], False),
        ([("A^B", "1970-01-02"), ("A^B", "1980-01-02")], True),
        ([("A^B", None), ("C^D", None)], True),
    ],
)
async def test_a_patient_that_is_not_written_yet_may_be_two_people(
    stage: QueryStage, demographics: list[tuple[str | None, str | None]], *, is_conflict: bool
) -> None:
    await stage.store_study("P1", 1)
    studies = stage.runtime.database["studies"]
    said = [{"patientName": name, "patientBirthDate": date} for name, date in demographics]
    await studies.update_one({}, {"$set": {"demographicsOfFiles": said}})
    query = "{ studies { nodes { patient { hasConflictingDemographics } } } }"
    (study,) = (await stage.data(query))["studies"]["nodes"]
    assert study["patient"]["hasConflictingDemographics"] is is_conflict


async def test_operations_of_one_socket_share_nothing(stage: QueryStage) -> None:
    await stage.store_patient("P1", "A^B")
    await stage.store_study("P1", 1)
    socket = Context(runtime=stage.runtime, principal=LOCAL_ADMIN, base_url="http://here")
    loaders, nodes_left = socket.loaders, socket.nodes_left
    query = '{ study(studyInstanceUID: "1.2.1") { patient { id } series { id } } }'
    results = await asyncio.gather(
        *(stage.schema.execute(query, context_value=socket) for _ in range(2))
    )
    assert [result.errors for result in results] == [None, None]
    assert socket.loaders is loaders
    assert socket.nodes_left == nodes_left
    assert socket.accesses == AccessLog()


async def test_an_operation_reads_five_hundred_headers_and_no_more(stage: QueryStage) -> None:
    await stage.store_patient("P1", "A^B")
    study = await stage.store_study("P1", 1)
    await stage.store_series(study, 1, 502)
    _, codes = await stage.run('{ series(seriesInstanceUID: "1.3.1") { instances { tags } } }')
    assert (codes.count("PACS_DISABLED"), codes.count("LIMIT_EXCEEDED")) == (500, 2)


async def test_a_header_without_orthanc_says_that_pacs_integration_is_off(
    stage: QueryStage,
) -> None:
    await stage.store_patient("P1", "A^B")
    study = await stage.store_study("P1", 1)
    await stage.store_series(study, 1, 1)
    data, codes = await stage.run('{ instance(sopInstanceUID: "1.3.1.0") { tags } }')
    assert (data, codes) == ({"instance": {"tags": None}}, ["PACS_DISABLED"])
