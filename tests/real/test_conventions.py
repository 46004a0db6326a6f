"""What clients of GraphQL take for granted: ids, caches, errors with the argument at fault."""

from typing import Any

import pytest
from pydicom.data import get_testdata_file

from graph.relay import encode_node_id
from tests.real.sync_stage import instance_bytes
from tests.real.test_subscriptions import sent
from tests.servers import RunningServer

NOWHERE = encode_node_id("Study", "f689ddd2-662f8fe1-8b18180d-ec2a2cee-937917af")
CT = "1.2.826.0.1.3680043.8.498.1.1.1"
"""SOPInstanceUID of `instance_bytes(1, 1, 1)`."""

LEVELS = (
    f'{{ instance(sopInstanceUID: "{CT}") '
    "{ id frame { id } series { id study { id patient { id } } } } }"
)


@pytest.fixture
async def ids(server: RunningServer) -> dict[str, str]:
    """The `id` of each type, of one stored file."""
    await server.runtime.ingest.store([sent(instance_bytes(1, 1, 1))])
    found: dict[str, Any] = await server.graphql(LEVELS)
    instance = found["instance"]
    return {
        "Instance": instance["id"],
        "Frame": instance["frame"]["id"],
        "Series": instance["series"]["id"],
        "Study": instance["series"]["study"]["id"],
        "Patient": instance["series"]["study"]["patient"]["id"],
    }


async def errors_of(server: RunningServer, query: str, **variables: object) -> list[object]:
    """Ask what is refused; answers path, code and argument of each error."""
    body = {"query": query, "variables": variables}
    answer = (await server.http.post("/graphql", json=body)).json()
    return [
        (error.get("path"), error["extensions"]["code"], error["extensions"].get("argument"))
        for error in answer["errors"]
    ]


async def test_every_id_leads_back_to_its_object(
    server: RunningServer, ids: dict[str, str]
) -> None:
    query = "query($ids: [ID!]!) { nodes(ids: $ids) { __typename id } }"
    asked = [ids["Frame"], "nothing", NOWHERE, *ids.values()]
    answer = await server.graphql(query, ids=asked)
    found = [{"__typename": name, "id": identifier} for name, identifier in ids.items()]
    frame = {"__typename": "Frame", "id": ids["Frame"]}
    assert answer == {"nodes": [frame, None, None, *found]}
    for name, identifier in ids.items():
        one = await server.graphql(
            "query($id: ID!) { node(id: $id) { __typename } }", id=identifier
        )
        assert one == {"node": {"__typename": name}}


async def test_frames_are_found_by_instance_and_index(
    server: RunningServer, ids: dict[str, str]
) -> None:
    with open(str(get_testdata_file("emri_small.dcm")), "rb") as file:  # noqa: ASYNC230, PTH123
        [stored] = await server.runtime.ingest.store([sent(file.read())])
    assert stored.ids is not None
    many = encode_node_id("Instance", stored.ids.instance)
    refs = [
        {"instanceId": many, "index": 9},
        {"instanceId": many, "index": 10},
        {"instanceId": many, "index": -1},
        {"instanceId": ids["Instance"]},
        {"instanceId": ids["Study"]},
    ]
    query = "query($refs: [FrameRef!]!) { frames(refs: $refs) { id index orthancInstanceId path } }"
    answer: dict[str, Any] = await server.graphql(query, refs=refs)
    last, beyond, before, only, other = answer["frames"]
    assert (last["index"], last["orthancInstanceId"]) == (9, stored.ids.instance)
    assert (beyond, before, other) == (None, None, None)
    assert only["id"] == ids["Frame"]
    assert (await server.http.get(last["path"])).status_code == 200


@pytest.mark.parametrize(
    ("query", "field", "argument", "one"),
    [
        ("query($x: [ID!]!) { nodes(ids: $x) { id } }", "nodes", "ids", "a"),
        (
            "query($x: [FrameRef!]!) { frames(refs: $x) { id } }",
            "frames",
            "refs",
            {"instanceId": "a"},
        ),
    ],
)
async def test_more_than_500_at_once_are_refused(
    server: RunningServer, query: str, field: str, argument: str, one: object
) -> None:
    asked = [one] * 501
    assert await errors_of(server, query, x=asked) == [([field], "INVALID_INPUT", argument)]


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ("first: 501", "first"),
        ("last: -1", "last"),
        ('first: 1, before: "x"', "before"),
        ('after: "nowhere"', "after"),
        ('last: 1, before: "nowhere"', "before"),
        ('filter: {studyDate: {from: "2026-01-02", to: "2026-01-01"}}', "filter.studyDate"),
    ],
)
async def test_an_error_names_the_argument_of_a_list(
    server: RunningServer, arguments: str, argument: str
) -> None:
    query = f"{{ studies({arguments}) {{ nodes {{ id }} }} }}"
    assert await errors_of(server, query) == [(["studies"], "INVALID_INPUT", argument)]


@pytest.mark.parametrize(
    ("arguments", "argument"),
    [
        ("windowCenter: 1", "windowWidth"),
        ("windowWidth: 1", "windowCenter"),
        ("windowCenter: 1, windowWidth: 0", "windowWidth"),
        ("windowCenter: 1e11, windowWidth: 1", "windowCenter"),
        ("windowCenter: 1, windowWidth: 1, fullRange: true", "fullRange"),
        ("maxSize: 0", "maxSize"),
    ],
)
async def test_a_picture_with_a_wrong_argument_leaves_its_parents(
    server: RunningServer, ids: dict[str, str], arguments: str, argument: str
) -> None:
    query = (
        f'{{ instance(sopInstanceUID: "{CT}") {{ id good: frame {{ id }} '
        f"bad: frame {{ url({arguments}) }} }} }}"
    )
    answer = (await server.http.post("/graphql", json={"query": query})).json()
    assert answer["data"]["instance"] == {
        "id": ids["Instance"],
        "good": {"id": ids["Frame"]},
        "bad": None,
    }
    [error] = answer["errors"]
    assert error["path"] == ["instance", "bad", "url"]
    assert error["extensions"] == {"code": "INVALID_INPUT", "argument": argument}


async def test_a_part_of_the_header_is_chosen_by_keywords(
    server: RunningServer, ids: dict[str, str]
) -> None:
    assert ids
    query = f'{{ instance(sopInstanceUID: "{CT}") {{ tags(only: %s) }} }}'
    answer = await server.graphql(query % '["Modality", "PatientID", "PixelData"]')
    assert answer["instance"] == {
        "tags": {
            "00080060": {"vr": "CS", "Value": ["CT"]},
            "00100020": {"vr": "LO", "Value": ["P1"]},
        }
    }
    path = ["instance", "tags"]
    assert await errors_of(server, query % '["modality"]') == [(path, "INVALID_INPUT", "only")]


async def test_an_empty_list_matches_nothing_in_every_filter(
    server: RunningServer, ids: dict[str, str]
) -> None:
    assert ids
    for name in ("studyInstanceUIDs", "modalities"):
        query = f"{{ studies(filter: {{{name}: []}}) {{ totalCount nodes {{ id }} }} }}"
        assert await server.graphql(query) == {"studies": {"totalCount": 0, "nodes": []}}


async def test_a_deletion_names_everything_that_is_gone(
    server: RunningServer, ids: dict[str, str]
) -> None:
    await server.runtime.ingest.store([sent(instance_bytes(1, 2, 1))])
    query = "mutation($id: ID!) { deleted: %s(id: $id) { deletedInstances deletedIds } }"
    answer: dict[str, Any] = await server.graphql(query % "deleteSeries", id=ids["Series"])
    # The study has another series, and stays.
    assert answer["deleted"]["deletedInstances"] == 1
    assert set(answer["deleted"]["deletedIds"]) == {ids["Series"], ids["Instance"]}
    answer = dict(await server.graphql(query % "deletePatient", id=ids["Patient"]))
    gone = set(answer["deleted"]["deletedIds"])
    assert {ids["Patient"], ids["Study"]} <= gone
    assert len(gone) == 4
    again = await server.graphql(query % "deletePatient", id=ids["Patient"])
    assert again == {"deleted": {"deletedInstances": 0, "deletedIds": []}}
